// Foreign text (names, reasons, continuations) reaches the page as textContent only, never as markup.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const byId = (id) => document.getElementById(id);
const runs = read("runs-data");
const numRuns = runs.columns[0].values.length;
const columnOf = Object.fromEntries(runs.columns.map((column) => [column.key, column]));

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const numberFormats = {
  count: new Intl.NumberFormat("en", { maximumFractionDigits: 0 }),
  bits: new Intl.NumberFormat("en", { minimumFractionDigits: 4, maximumFractionDigits: 4 }),
  number: new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }),
  percent: new Intl.NumberFormat("en", {
    style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "exceptZero",
  }),
};

const isText = (column) => column.form === "text";

function valueOf(column, run) {
  const value = column.values[run];
  return value === null || !isText(column) ? value : runs.texts[value];
}

function shown(column, run) {
  const value = valueOf(column, run);
  if (value === null) return "–";
  if (isText(column)) return column.key === "status" ? value.replaceAll("_", " ") : value;
  return numberFormats[column.form].format(value).replace("-", "−").replace("%", "\u00a0%");
}

function shortId(run) {
  const id = valueOf(columnOf.run_id, run);
  const hash = /_([0-9a-f]{10})$/.exec(id);
  return hash ? hash[1] : id;
}

const runName = (run) => runs.texts[runs.names[run]];
