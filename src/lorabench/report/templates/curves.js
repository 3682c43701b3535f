// Training curves of the runs that the reader chooses.
const curves = { data: read("curves-data"), chosen: [], max: 8 };
const curvePanels = ["training", "learning_rate", "gradient_norm"];
const curveNames = Object.fromEntries(curvePanels.map((key) => [key, byId(`curve-title-${key}`).textContent]));
const knownOf = (values) => values.filter((value) => value !== null);
const valuesOf = (curve) => knownOf([...curve.training, ...curve.evaluated.map(([, value]) => value)]);
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
  const [loss, norm] = [knownOf(curve.training), knownOf(curve.gradient_norm)];
  const validation = knownOf(curve.evaluated.map(([, value]) => value));
  const cells = [
    [curve.step.at(-1), "count"], [loss[0], "bits"], [loss.at(-1), "bits"], [validation[0], "bits"],
    [validation.length ? Math.min(...validation) : undefined, "bits"], [validation.at(-1), "bits"],
    [norm.length ? Math.max(...norm) : undefined, "number"],
  ];
  const shownCells = cells.map(([value, form]) =>
    element("td", { class: "n" }, value === undefined ? "–" : numberFormats[form].format(value)));
  return element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, curveName(run))), ...shownCells);
}

function between(values, form) {
  const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => form(value));
  return low === high ? low : `${low} to ${high}`;
}

// What each panel shows of the runs that are drawn: its title.
const curveFindings = {
  training(drawn, most) {
    const ends = drawn.map((curve) => knownOf(curve.evaluated.map(([, value]) => value)).at(-1)).filter((value) => value !== undefined);
    const out = drawn.map((curve) => Math.max(...valuesOf(curve))).filter((value) => value > most);
    const leave = `${out.length} of ${drawn.length} run${drawn.length > 1 ? "s" : ""} ${out.length > 1 ? "leave" : "leaves"} the axis, up to`;
    return [
      ends.length ? `Validation ends at ${between(ends, numberFormats.bits.format)} bits per byte` : "",
      out.length ? `${leave} ${Math.max(...out).toPrecision(2)}` : "",
    ].filter(Boolean).join("; ");
  },
  learning_rate(drawn) {
    const rates = drawn.map((curve) => knownOf(curve.learning_rate)).filter((values) => values.length);
    const form = (value) => String(Number(value.toPrecision(3)));
    if (!rates.length) return "";
    const [highest, last] = [rates.map((values) => Math.max(...values)), rates.map((values) => values.at(-1))];
    return `The learning rate is at most ${between(highest, form)} and ends at ${between(last, form)}`;
  },
  gradient_norm(drawn) {
    const peaks = drawn.map((curve) => curve.norm_peak).filter(Boolean);
    if (!peaks.length) return "";
    const [times, step] = peaks.reduce((most, peak) => (peak[0] > most[0] ? peak : most));
    return `The gradient norm is at most ${times} times its run's median, at step ${step}`;
  },
};

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
  const drawn = curves.chosen.map((run) => curves.data[run]);
  const most = Math.max(...knownOf(drawn.map((curve) => curve.most)));
  const values = drawn.flatMap(valuesOf);
  for (const key of curvePanels) {
    byId(`curve-title-${key}`).textContent = curveFindings[key](drawn, most) || curveNames[key];
    const lastStep = Math.max(0, ...drawn.map((curve) => curve.step.at(-1) ?? 0));
    const xaxis = { title: { text: "step" }, ...(lastStep <= 10 ? { dtick: 1 } : {}) };
    const yaxis = { title: { text: key === "training" ? "bits per byte" : curveNames[key] } };
    if (key === "gradient_norm" && drawn.some((curve) => curve.norm_peak?.[0] > 10)) yaxis.type = "log";
    if (key === "learning_rate") yaxis.exponentformat = "e";
    if (key === "training" && values.some((value) => value > most)) {
      const least = Math.min(...values);
      yaxis.range = [least - 0.06 * (most - least), most];
    }
    const layout = { showlegend: false, xaxis, yaxis, margin: { l: 48, r: 8, t: 8, b: 40 } };
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
