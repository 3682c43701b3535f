// Figures: each is drawn when it comes near the screen.
const figures = read("figures-data");
const drawn = new Map();

function colours(value) {
  const style = getComputedStyle(document.documentElement);
  const visit = (item) => {
    if (typeof item === "string") return item.startsWith("--") ? style.getPropertyValue(item).trim() || item : item;
    if (Array.isArray(item)) return item.map(visit);
    if (item && typeof item === "object") return Object.fromEntries(Object.entries(item).map(([key, inner]) => [key, visit(inner)]));
    return item;
  };
  return visit(value);
}

function themed(layout, isNarrow) {
  const axis = { gridcolor: "--grid", linecolor: "--line", zerolinecolor: "--line", automargin: true, title: { standoff: 12, font: { size: isNarrow ? 11 : 12.5, color: "--muted" } } };
  const own = (given) => ({ ...axis, ...given, title: { ...axis.title, ...given?.title } });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: isNarrow ? 11 : 12.5, color: "--ink" },
    margin: { l: 56, r: 12, t: 12, b: 48 }, showlegend: true, barmode: "group", bargap: 0.3,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemwidth: 30 },
    hoverlabel: { bgcolor: "--paper", bordercolor: "--muted", font: { color: "--ink" }, align: "left" },
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    // Few ticks where there is little room: else their number, and with it the margins, can change back and forth.
    ...layout, xaxis: own(layout.xaxis), yaxis: own(isNarrow ? { nticks: 6, ...layout.yaxis } : layout.yaxis),
  };
}

async function draw(box) {
  try {
    drawNow(await loadPlotly(), box);
  } catch (error) {
    console.warn(error);
    box.textContent = "This browser cannot draw the figures; a newer one can. Their numbers are in the tables.";
  }
}

function drawNow(library, box) {
  const { data, layout } = drawn.get(box)();
  const isNarrow = box.clientWidth < 480;
  const hasLongLegend = isNarrow && data.length > 4 && layout.showlegend !== false;
  const height = layout.height ?? (hasLongLegend ? 320 + 20 * data.length : null);
  if (height) box.style.height = `${height}px`;
  else box.style.removeProperty("height");
  if (!box.classList.contains("ready")) box.replaceChildren();
  box.classList.add("ready");
  const copy = structuredClone(data);
  library.react(box, colours(copy), colours(themed(layout, isNarrow)), { displayModeBar: false, responsive: true });
}

function show(box, describe) {
  const isNew = !drawn.has(box);
  drawn.set(box, describe);
  if (isNew) watcher.observe(box);
  else if (box.classList.contains("ready")) draw(box);
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((item) => item.isIntersecting)) {
    watcher.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "400px" });

function redrawAll() {
  if (!window.Plotly) return;
  for (const box of drawn.keys()) if (box.isConnected && box.classList.contains("ready")) drawNow(window.Plotly, box);
}

function startFigures() {
  for (const figure of document.querySelectorAll("figure[data-figure]")) {
    const panels = figures[figure.dataset.figure];
    const box = figure.querySelector(".plot");
    const select = figure.querySelector("select");
    const [finding, sentence] = [".finding bdi", ".reading bdi"].map((place) => figure.querySelector(place));
    const update = () => {
      const panel = panels[select ? Number(select.value) : 0];
      finding.textContent = panel.finding;
      sentence.textContent = panel.sentence;
      show(box, () => panel);
    };
    select?.addEventListener("change", update);
    update();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  for (const [event, isPrinting] of [["beforeprint", true], ["afterprint", false]]) {
    addEventListener(event, () => {
      document.documentElement.classList.toggle("printing", isPrinting);
      redrawAll();
    });
  }
  (window.requestIdleCallback ?? setTimeout)(() => loadPlotly().catch(() => null));
}
