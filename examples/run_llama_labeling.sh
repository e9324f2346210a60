#!/usr/bin/env bash
# Name SAE features with a language model on this machine.
#
#   examples/run_llama_labeling.sh "11,313,251" SAE_PATH SAE_ID
#
# FEATURES is a comma list, a JSON file with "feature_indices" (and "scores"), or a ranking's folder.
# SAE_ID is a hook point (blocks.19.hook_resid_post) or an sae_id.
# From the environment: MODEL_PATH, LABEL_MODEL (MODEL_PATH unless set), DATASET_PATH, COLUMN, OUTPUT_DIR, N_SAMPLES,
# MAX_EXAMPLES, DEVICE.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    echo "Usage: $0 FEATURES SAE_PATH SAE_ID" >&2
    exit 2
fi

model=${MODEL_PATH:-meta-llama/Llama-3.1-8B-Instruct}

exec conceptatlas label \
    --features "$1" \
    --saes "$2" \
    --sae-id "$3" \
    --model "$model" \
    --label-model "${LABEL_MODEL:-$model}" \
    --dataset "${DATASET_PATH:-NeelNanda/pile-10k}" \
    --column "${COLUMN:-text}" \
    --output-dir "${OUTPUT_DIR:-results}" \
    --n-samples "${N_SAMPLES:-1000}" \
    --max-examples "${MAX_EXAMPLES:-20}" \
    --device "${DEVICE:-auto}"
