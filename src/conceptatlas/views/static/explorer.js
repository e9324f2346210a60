// The keyboard, and stars without a reload. Everything works without this file, only slower.
"use strict";
(() => {
  let at = -1;
  const rows = () => Array.from(document.querySelectorAll("[data-row]"));
  const typing = (target) => target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");

  function select(place) {
    const all = rows();
    if (!all.length) return;
    at = Math.max(0, Math.min(all.length - 1, place));
    all.forEach((row, i) => row.classList.toggle("sel", i === at));
    all[at].scrollIntoView({ block: "nearest" });
    const link = all[at].querySelector("a[href]");
    if (link) link.focus({ preventScroll: true });
  }

  function go(rel) {
    const link = document.querySelector(`a[rel="${rel}"]`);
    if (link) link.click();
  }

  async function star(form) {
    const button = form.querySelector("button");
    const field = form.querySelector("input[name=star]");
    const on = field.value === "1";
    const reply = await fetch(form.action, { method: "POST", body: new URLSearchParams({ star: field.value }) });
    if (!reply.ok) { form.submit(); return; }
    field.value = on ? "0" : "1";
    button.textContent = on ? "★" : "☆";
    button.classList.toggle("on", on);
    button.setAttribute("aria-pressed", String(on));
  }

  document.addEventListener("submit", (event) => {
    if (event.target.matches(".starform")) { event.preventDefault(); star(event.target); }
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    if (event.key === "/") {
      const box = document.querySelector("input[type=search]");
      if (box) { event.preventDefault(); box.focus(); box.select(); }
    } else if (event.key === "j" || event.key === "k") {
      if (rows().length && !document.querySelector(".crumbs")) select(at + (event.key === "j" ? 1 : -1));
      else go(event.key === "j" ? "next" : "prev");
    } else if (event.key === "o") {
      const link = rows()[at]?.querySelector("a[href]");
      if (link) link.click();
    } else if (event.key === "s") {
      const form = (rows()[at] ?? document).querySelector(".starform");
      if (form) star(form);
    }
  });

  const dose = document.getElementById("dose");
  const shown = document.getElementById("dose-value");
  if (dose && shown) dose.addEventListener("input", () => { shown.textContent = dose.value; });

  // Empty fields would only make the address long.
  document.querySelectorAll("form.filters").forEach((form) => form.addEventListener("formdata", (event) => {
    for (const [name, value] of Array.from(event.formData.entries())) if (value === "") event.formData.delete(name);
  }));
})();
