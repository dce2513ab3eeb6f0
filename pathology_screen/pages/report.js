"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  if (!find("#viewer")) return;

  const groups = all("#outlines g");
  const choose = find("#chosen").textContent;
  let level = groups.find((group) => !group.hasAttribute("hidden")).dataset.level;

  function draw() {
    const reconstruction = find("#show-reconstruction")?.checked;
    find("#base").setAttribute("href", `#${reconstruction ? "reconstruction" : "input"}-${level}`);
    find("#base-name").textContent = reconstruction ? "pseudo-healthy reconstruction" : "input";
    find("#map").setAttribute("href", `#map-${level}`);
    find("#map").setAttribute("opacity", find("#opacity").value / 100);
    find("#map").toggleAttribute("hidden", !find("#show-map").checked);
    find("#outlines").toggleAttribute("hidden", !find("#show-outlines").checked);
    all("use[data-kind]").forEach((use) => use.setAttribute("href", `#${use.dataset.kind}-${level}`));
    groups.forEach((group) => group.toggleAttribute("hidden", group.dataset.level !== level));
    all(".levels a").forEach((link) =>
      link.classList.toggle("current", link.getAttribute("href") === `#level-${level}`));
  }

  function show(index) {
    const group = groups[index];
    level = group.dataset.level;
    if (find("#slice")) find("#slice").value = index;
    const count = groups.length > 1 ? ` · slice ${index + 1} of ${groups.length}` : "";
    const position = find("#position");
    position.textContent = `Level ${level} (0–${position.dataset.last})${count} · score ${group.dataset.score}`;
    draw();
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
    const [, kind, number] = location.hash.match(/^#(level|region)-(\d+)$/) ?? [];
    const row = kind === "region" ? find(`tr[data-region="${number}"]`) : null;
    const wanted = row ? row.dataset.level : kind === "level" ? number : null;
    const index = groups.findIndex((group) => group.dataset.level === wanted);
    if (index < 0) return;
    show(index);
    select(row ? number : null);
    if (row) find("#viewer").scrollIntoView({ block: "nearest" });
  }

  find(".controls").hidden = false;
  find(".controls").addEventListener("input", (event) => {
    if (event.target.id === "slice") show(Number(event.target.value));
    else draw();
  });
  find("#stack").addEventListener("click", (event) => select(event.target.dataset.region ?? null));
  all("tr[data-region]").forEach((row) => row.addEventListener("click", () => {
    history.replaceState(null, "", `#region-${row.dataset.region}`);
    follow();
  }));
  addEventListener("hashchange", follow);
  show(groups.findIndex((group) => group.dataset.level === level));
  follow();
})();
