"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const TEXTS = [1, 2, 9];  // columns of name, outcome and review; the others are numbers
  const listed = all("tbody tr[data-name]");
  const filters = all("button[data-show]");
  const headers = all("button[data-sort]");
  const body = document.querySelector(".worklist tbody");
  const store = `pathology_screen ${find("run").dataset.identity}`;
  const STEP = listed.filter((row) => !row.hidden).length;  // rows that are shown at once
  let rows = listed, shown = listed.slice(0, STEP), limit = STEP, marks = {}, keeps = true;

  // --- the table ---

  const matches = (row, kind) => kind === "" || row.dataset.outcome === kind || row.classList.contains(kind);

  function draw() {
    const kind = filters.find((button) => button.ariaPressed === "true").dataset.show;
    const wanted = rows.filter((row) => matches(row, kind));
    shown.forEach((row) => { row.hidden = true; });
    shown = wanted.slice(0, limit);
    shown.forEach((row) => { row.hidden = false; offer(row); });
    for (let i = 0; i < shown.length; i += STEP) body.append(...shown.slice(i, i + STEP));
    find("shown").textContent = `${shown.length} of ${listed.length} shown`;
    find("more").hidden = shown.length === wanted.length;
  }

  function follow() {
    const kind = location.hash.slice(1);
    const chosen = filters.find((button) => button.dataset.show === kind) ?? filters[0];
    filters.forEach((button) => { button.ariaPressed = String(button === chosen); });
    limit = STEP;
    draw();
  }

  function value(row, column) {
    const { name, outcome } = row.dataset, cell = row.cells[column];
    if (TEXTS.includes(column)) return { 1: name, 2: outcome, 9: marks[name]?.mark ?? "" }[column];
    return cell?.dataset.label ? Number(cell.textContent) : NaN;
  }

  function sort(button) {
    const column = Number(button.dataset.sort), header = button.parentElement;
    const ascending = header.ariaSort ? header.ariaSort === "descending" : TEXTS.includes(column);
    const sign = ascending ? 1 : -1;
    const keys = new Map(listed.map((row) => [row, value(row, column)]));
    const empty = (key) => key === "" || Number.isNaN(key);
    const order = new Intl.Collator("en", { numeric: true }).compare;
    rows = [...listed].sort((a, b) => {
      const [one, other] = [keys.get(a), keys.get(b)];
      if (empty(one) || empty(other)) return empty(one) - empty(other);
      return sign * (typeof one === "number" ? one - other : order(one, other));
    });
    headers.forEach((each) => each.parentElement.removeAttribute("aria-sort"));
    header.ariaSort = ascending ? "ascending" : "descending";
    limit = STEP;
    draw();
  }

  // --- a reviewer's marks ---

  function recall() {
    try { marks = JSON.parse(localStorage.getItem(store)) ?? {}; } catch { keeps = false; }
  }

  function keep() {
    try { localStorage.setItem(store, JSON.stringify(marks)); } catch { keeps = false; }
    tell();
  }

  function tell(more = "") {
    const count = listed.filter((row) => marks[row.dataset.name]?.mark).length;
    const kept = keeps ? "kept in this browser" : "this browser keeps nothing: export before you leave";
    find("kept").textContent = `${count} of ${listed.length} reviewed; ${kept}${more}`;
  }

  function offer(row) {
    const cell = row.querySelector("td.mark"), name = row.dataset.name;
    if (cell.firstChild) return;
    cell.append(find("marks").content.cloneNode(true));
    const [mark, note] = cell.children;
    show(row);
    cell.addEventListener("change", () => {
      if (mark.value || note.value) marks[name] = { mark: mark.value, note: note.value };
      else delete marks[name];
      keep();
    });
  }

  function show(row) {
    const [mark, note] = row.querySelector("td.mark").children;
    if (!mark) return;
    mark.value = marks[row.dataset.name]?.mark ?? "";
    note.value = marks[row.dataset.name]?.note ?? "";
  }

  const safe = (text) => /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;  // no formula of a spreadsheet
  const plain = (text) => /^'[=+\-@\t\r\n]/.test(text) ? text.slice(1) : text;
  const quoted = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

  function exported() {
    const outcomes = new Map(listed.map((row) => [row.dataset.name, row.dataset.outcome]));
    const lines = Object.entries(marks).map(([name, { mark, note }]) =>
      [safe(name), outcomes.get(name) ?? "", mark, safe(note)].map(quoted).join(","));
    return ["name,outcome,mark,note", ...lines, ""].join("\r\n");
  }

  function parsed(text) {
    const lines = [[]];
    for (const [, quote, bare, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
      lines.at(-1).push(plain(quote?.replaceAll('""', '"') ?? bare));
      if (end !== ",") lines.push([]);
    }
    return lines.filter((line) => line.length > 1);
  }

  function take(text) {
    const [header, ...lines] = parsed(text.replace(/^\uFEFF/, ""));
    const [name, mark, note] = ["name", "mark", "note"].map((column) => header?.indexOf(column) ?? -1);
    const allowed = [...find("marks").content.querySelectorAll("option")].map((option) => option.value);
    const usable = lines.filter((line) => line[name] && allowed.includes(line[mark]));
    if (name < 0 || mark < 0) return tell("; that file has no columns name and mark: nothing was taken");
    usable.forEach((line) => { marks[line[name]] = { mark: line[mark], note: line[note] ?? "" }; });
    listed.forEach(show);
    keep();
    const here = usable.filter((line) => listed.some((row) => row.dataset.name === line[name])).length;
    tell(`; ${usable.length} taken from the file, ${here} of scans on this page, ${lines.length - usable.length} not understood`);
  }

  find("export").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exported()], { type: "text/csv" }));
    link.download = "reviews.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  find("import").addEventListener("change", async ({ target }) => {
    if (target.files[0]) take(await target.files[0].text());
    target.value = "";
  });
  filters.forEach((button) => button.addEventListener("click", () => {
    history.replaceState(null, "", `#${button.dataset.show}`);
    follow();
  }));
  headers.forEach((button) => button.addEventListener("click", () => sort(button)));
  find("more").addEventListener("click", () => { limit += STEP; draw(); });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => { limit = Infinity; draw(); });
  document.querySelector(".review").hidden = false;
  recall();
  follow();
  tell();
})();
