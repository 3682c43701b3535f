// Training curves of the runs that the reader chooses.
const curves = { data: read("curves-data"), chosen: [], max: 8 };
const curvePanels = ["training", "learning_rate", "gradient_norm"];
const escapePlotText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function curveName(run) {
  const note = curves.data[run].note;
  return note ? `${runName(run)} (${note})` : runName(run);
}

function curveTrace(run, place, what, x, y) {
  const isValidation = what === "validation";
  return {
    type: "scatter", mode: isValidation ? "lines+markers" : "lines", name: escapePlotText(curveName(run)), x, y,
    line: { color: `--c${place}`, width: 1.75, dash: isValidation ? "dot" : "solid" },
    marker: { color: `--c${place}`, size: 7 }, hoverinfo: "text",
    hovertext: y.map((value, i) => `${escapePlotText(curveName(run))}<br>${what}, step ${x[i]}: ${value}`),
  };
}

function curveTraces(key) {
  return curves.chosen.flatMap((run, place) => {
    const curve = curves.data[run];
    const own = curveTrace(run, place, key.replace("_", " "), curve.step, curve[key]);
    const [steps, values] = [0, 1].map((part) => curve.evaluated.map((pair) => pair[part]));
    return key === "training" ? [own, curveTrace(run, place, "validation", steps, values)] : [own];
  });
}

function curveRow(run) {
  const curve = curves.data[run];
  const known = (values) => values.filter((value) => value !== null);
  const [loss, norm] = [known(curve.training), known(curve.gradient_norm)];
  const validation = known(curve.evaluated.map(([, value]) => value));
  const cells = [
    [curve.step.at(-1), "count"], [loss[0], "bits"], [loss.at(-1), "bits"], [validation[0], "bits"],
    [validation.length ? Math.min(...validation) : undefined, "bits"], [validation.at(-1), "bits"],
    [norm.length ? Math.max(...norm) : undefined, "number"],
  ];
  const shownCells = cells.map(([value, form]) =>
    element("td", { class: "n" }, value === undefined ? "–" : numberFormats[form].format(value)));
  return element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, curveName(run))), ...shownCells);
}

function drawCurves() {
  const chips = curves.chosen.map((run, place) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = `var(--c${place})`;
    const remove = element("button", {
      class: "round screen", type: "button", "aria-label": `Remove the curve of ${curveName(run)}`,
      onclick: () => { chooseCurve(run, false); drawTable(); },
    }, "×");
    return element("li", {}, swatch, element("bdi", {}, curveName(run)), remove);
  });
  byId("curves-chosen").replaceChildren(...chips);
  byId("curves-table").tBodies[0].replaceChildren(...curves.chosen.map(curveRow));
  byId("curves-empty").hidden = curves.chosen.length > 0;
  for (const key of curvePanels) {
    const lastStep = Math.max(0, ...curves.chosen.map((run) => curves.data[run].step.at(-1) ?? 0));
    const xaxis = { title: { text: "step" }, ...(lastStep <= 10 ? { dtick: 1 } : {}) };
    const layout = { showlegend: false, xaxis, margin: { l: 48, r: 8, t: 8, b: 40 } };
    if (key === "learning_rate") layout.yaxis = { exponentformat: "e" };
    show(byId(`curve-${key}`), () => ({ data: curveTraces(key), layout }));
  }
}

function chooseCurve(run, isChosen) {
  const status = byId("curves-status");
  status.textContent = "";
  if (isChosen && curves.chosen.length >= curves.max && !curves.chosen.includes(run)) {
    status.textContent = `At most ${curves.max} curves are drawn at once; remove one first.`;
    return false;
  }
  curves.chosen = curves.chosen.filter((item) => item !== run);
  if (isChosen) curves.chosen.push(run);
  drawCurves();
  return true;
}

function startCurves() {
  curves.chosen = read("curves-first");
  drawCurves();
}

startCurves();
