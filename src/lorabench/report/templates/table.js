// The table of all runs: a page of rows at a time, so that thousands stay quick.
const table = { sort: null, descending: false, page: 0, matching: [], hasChosenColumns: false };
const wantedColumns = runs.columns.filter((column) => column.shown);
const shownColumns = () => runs.columns.filter((column) => column.shown);

function searchTexts() {
  const texts = runs.columns.filter(isText);
  return Array.from({ length: numRuns }, (_, run) =>
    texts.map((column) => shown(column, run)).join("\n").toLowerCase() + "\n" + runName(run).toLowerCase());
}
let searched = null;

function matches() {
  searched ??= searchTexts();
  const words = byId("runs-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...document.querySelectorAll("[data-filter]")].filter((select) => select.value !== "");
  const found = [];
  for (let run = 0; run < numRuns; run++) {
    if (!words.every((word) => searched[run].includes(word))) continue;
    if (chosen.every((select) => String(columnOf[select.dataset.filter].values[run]) === select.value)) found.push(run);
  }
  return found;
}

function sorted(found) {
  if (table.sort === null) return found;
  const column = columnOf[table.sort];
  const collator = new Intl.Collator("en", { numeric: true });
  const sign = table.descending ? -1 : 1;
  return found
    .map((run) => [valueOf(column, run), run])
    .sort(([a, first], [b, second]) => {
      if (a === null || b === null) return (a === null) - (b === null) || first - second;
      return sign * (isText(column) ? collator.compare(a, b) : a - b) || first - second;
    })
    .map(([, run]) => run);
}

function updateTable() {
  table.matching = sorted(matches());
  table.page = 0;
  drawTable();
}

function sortBy(key) {
  if (table.sort !== key) [table.sort, table.descending] = [key, false];
  else if (!table.descending) table.descending = true;
  else table.sort = null;
  updateTable();
  byId("runs-table").querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
}

function drawHead() {
  const cells = shownColumns().map((column) => {
    const direction = table.sort !== column.key ? "none" : table.descending ? "descending" : "ascending";
    const button = element(
      "button", { class: "plain", type: "button", title: column.about, "data-sort": column.key,
        onclick: () => sortBy(column.key) }, column.title);
    return element("th", { scope: "col", "aria-sort": direction, class: isText(column) ? "" : "n" }, button);
  });
  byId("runs-table").tHead.replaceChildren(element("tr", {}, ...cells));
}

function drawRow(run) {
  const box = element("input", {
    type: "checkbox", class: "screen", "aria-label": `Draw the curve of ${runName(run)}`, checked: curves.chosen.includes(run),
    onchange: (event) => { if (!chooseCurve(run, event.target.checked)) event.target.checked = false; },
  });
  const cells = shownColumns().map((column) => {
    if (column.key === "run_id") {
      const id = valueOf(column, run);
      const button = element(
        "button", { class: "plain id", type: "button", title: id, "aria-label": `Details of run ${id}`,
          onclick: () => openRun(run) }, shortId(run));
      return element("th", { scope: "row", class: "name" }, box, " ", button);
    }
    const text = shown(column, run);
    return isText(column)
      ? element("td", { class: "name", title: text }, element("bdi", {}, text))
      : element("td", { class: "n" }, text);
  });
  const isComplete = valueOf(columnOf.status, run) === "completed";
  return element("tr", { class: isComplete ? "" : "off" }, ...cells);
}

function drawTable() {
  const size = Number(byId("runs-size").value) || Math.max(1, table.matching.length);
  const numPages = Math.max(1, Math.ceil(table.matching.length / size));
  table.page = Math.min(table.page, numPages - 1);
  const first = table.page * size;
  const rows = table.matching.slice(first, first + size);
  drawHead();
  byId("runs-table").tBodies[0].replaceChildren(...rows.map(drawRow));
  const range = rows.length ? `${first + 1} to ${first + rows.length} of ` : "";
  const total = numberFormats.count.format(table.matching.length);
  const all = table.matching.length === numRuns ? "" : `, from ${numberFormats.count.format(numRuns)} in all`;
  byId("runs-status").textContent = `${range}${total} run${table.matching.length === 1 ? "" : "s"}${all}`;
  byId("runs-previous").disabled = table.page === 0;
  byId("runs-next").disabled = table.page >= numPages - 1;
}

function turnPage(by) {
  table.page += by;
  drawTable();
}

function makeFilters() {
  for (const key of ["status", "dataset", "model", "method", "rank", "learning_rate", "seed"]) {
    const column = columnOf[key];
    const values = [...new Set(column.values)].filter((value) => value !== null);
    if (values.length < 2 || values.length > 200) continue;
    const named = values.map((value) => [value, isText(column) ? runs.texts[value] : value]);
    named.sort(([, a], [, b]) => (isText(column) ? a.localeCompare(b) : a - b));
    const options = named.map(([value, name]) =>
      element("option", { value: String(value) }, key === "status" ? name.replaceAll("_", " ") : String(name)));
    const select = element(
      "select", { "data-filter": key, onchange: updateTable }, element("option", { value: "" }, "all"), ...options);
    byId("runs-filters").append(element("label", {}, column.title, select));
  }
}

function makeColumnChoice() {
  for (const column of runs.columns) {
    if (column.key === "run_id") continue;
    const box = element("input", {
      type: "checkbox", checked: column.shown,
      onchange: (event) => { table.hasChosenColumns = true; column.shown = event.target.checked; drawTable(); },
    });
    boxes.set(column, box);
    byId("runs-columns").append(element("label", {}, box, column.title));
  }
}

// As many columns as the window has room for, until the reader chooses: what is left out is counted.
const boxes = new Map();

function fitColumns() {
  if (table.hasChosenColumns) return;
  const room = byId("runs-table").parentElement;
  for (const column of wantedColumns) column.shown = true;
  drawTable();
  const left = wantedColumns.filter((column) => !column.kept);
  while (left.length && room.scrollWidth > room.clientWidth) {
    left.pop().shown = false;
    drawTable();
  }
  const numHidden = wantedColumns.filter((column) => !column.shown).length;
  byId("runs-hidden").textContent = numHidden ? `(${numHidden} more than there is room for)` : "";
  for (const [column, box] of boxes) box.checked = column.shown;
}

function openRun(run) {
  byId("run-title").textContent = runName(run);
  byId("run-id").textContent = valueOf(columnOf.run_id, run);
  const parts = [];
  const reason = runs.reasons[run];
  const status = shown(columnOf.status, run);
  parts.push(element("p", {}, element("span", { class: `badge ${status === "completed" ? "" : "bad"}` }, status)));
  if (reason !== null) parts.push(element("p", {}, element("bdi", {}, runs.texts[reason])));
  for (const note of runs.notes[run]) parts.push(element("p", { class: "note" }, element("bdi", {}, runs.texts[note])));
  const pairs = runs.columns
    .filter((column) => !["run_id", "status"].includes(column.key) && column.values[run] !== null)
    .map((column) => element("div", {}, element("dt", {}, column.title), element("dd", {}, element("bdi", {}, shown(column, run)))));
  parts.push(element("dl", { class: "pairs" }, ...pairs));
  parts.push(...runs.samples[run].map(drawSample));
  byId("run-body").replaceChildren(...parts);
  byId("run-curve").onclick = () => {
    if (!chooseCurve(run, true)) return;
    byId("run-dialog").close();
    drawTable();
    byId("curves").scrollIntoView();
  };
  byId("run-dialog").showModal();
}

function drawSample([prompt, base, adapted]) {
  const texts = [["beginning of a validation document", prompt], ["the base goes on", base], ["the adapter goes on", adapted]];
  const pairs = texts.filter(([, text]) => text !== null).map(([name, text]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, runs.texts[text].trimStart())));
  return element("dl", { class: "sample" }, ...pairs);
}

function startTable() {
  makeFilters();
  makeColumnChoice();
  byId("runs-search").addEventListener("input", updateTable);
  byId("runs-size").addEventListener("change", () => { table.page = 0; drawTable(); });
  byId("runs-previous").addEventListener("click", () => turnPage(-1));
  byId("runs-next").addEventListener("click", () => turnPage(1));
  byId("run-close").addEventListener("click", () => byId("run-dialog").close());
  updateTable();
  fitColumns();
  const own = byId("runs-table");
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width && own.isConnected) fitColumns();
    width = innerWidth;
  });
}

startTable();
