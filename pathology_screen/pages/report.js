"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (!find("#viewer")) return;

  const choose = find("#chosen").textContent;

  function draw() {
    const reconstruction = find("#show-reconstruction")?.checked;
    find("#base").setAttribute("href", reconstruction ? "#reconstruction" : "#input");
    find("#base-name").textContent = reconstruction ? "pseudo-healthy reconstruction" : "input";
    find("#over").setAttribute("opacity", find("#opacity").value / 100);
    find("#over").toggleAttribute("hidden", !find("#show-map").checked);
    find("#outlines").toggleAttribute("hidden", !find("#show-outlines").checked);
    find("#brain")?.toggleAttribute("hidden", !find("#show-template").checked);
  }

  function select(region) {
    all(".selected").forEach((element) => element.classList.remove("selected"));
    all(`[data-region="${region}"], [data-peak="${region}"]`).forEach((element) => element.classList.add("selected"));
    find("#outlines").classList.toggle("chosen", region !== null);
    const row = find(`tr[data-region="${region}"]`);
    find("#chosen").textContent = row ? `Region ${region}: ${row.dataset.text}` : choose;
    if (row) find(".regions").scrollTop = row.offsetTop - find(".regions").clientHeight / 2;
  }

  function follow() {
    const [, number] = location.hash.match(/^#region-(\d+)$/) ?? [];
    if (!find(`tr[data-region="${number}"]`)) return;
    select(number);
    find("#viewer").scrollIntoView({ block: "nearest" });
  }

  find(".controls").hidden = false;
  find(".controls").addEventListener("input", draw);
  find("#stack").addEventListener("click", (event) => select(event.target.dataset.region ?? null));
  all("tr[data-region]").forEach((row) => row.addEventListener("click", () => {
    history.replaceState(null, "", `#region-${row.dataset.region}`);
    follow();
  }));
  addEventListener("hashchange", follow);
  draw();
  follow();
})();
