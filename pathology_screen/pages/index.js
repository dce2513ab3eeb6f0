"use strict";
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const rows = all("tbody tr");
  const buttons = all("button[data-outcome]");

  function filter(outcome) {
    rows.forEach((row) => row.toggleAttribute("hidden", outcome !== "" && row.dataset.outcome !== outcome));
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.outcome === outcome)));
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = `${shown} of ${rows.length} shown`;
  }

  function follow() {
    const wanted = location.hash.slice(1);
    filter(buttons.some((button) => button.dataset.outcome === wanted) ? wanted : "");
  }

  buttons.forEach((button) => button.addEventListener("click", () => {
    history.replaceState(null, "", `#${button.dataset.outcome}`);
    follow();
  }));
  addEventListener("hashchange", follow);
  follow();
})();
