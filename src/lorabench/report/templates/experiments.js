// Experiments: one is in the page at a time, so that every id is there once; the others wait in their templates.
const remembered = `lorabench experiment of ${location.pathname}`;
const tabs = [...document.querySelectorAll("[role=tab]")];
const experiments = [...document.querySelectorAll(".experiment")].map((panel, place) => {
  const template = panel.querySelector(":scope > template");
  return { panel, waiting: template?.content ?? document.createDocumentFragment(), start: starts[place], redraw: null };
});
let shownExperiment = 0;

function makeLive(place) {
  const one = experiments[place];
  if (one.redraw) one.redraw();
  else if (one.panel.querySelector("#runs-data")) one.redraw = one.start();
}

function choose(place, isFocused) {
  if (place !== shownExperiment) {
    const [before, after] = [experiments[shownExperiment], experiments[place]];
    before.waiting.replaceChildren(...before.panel.childNodes);
    after.panel.replaceChildren(after.waiting);
    shownExperiment = place;
  }
  tabs.forEach((tab, other) => {
    tab.setAttribute("aria-selected", String(other === place));
    tab.tabIndex = other === place ? 0 : -1;
    experiments[other].panel.hidden = other !== place;
  });
  makeLive(place);
  if (isFocused) tabs[place].focus();
  try { sessionStorage.setItem(remembered, tabs[place].textContent); } catch { /* not kept where storage is forbidden */ }
}

tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => choose(place, false));
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const to = { ArrowRight: place === last ? 0 : place + 1, ArrowLeft: place === 0 ? last : place - 1, Home: 0, End: last };
    if (!(event.key in to)) return;
    event.preventDefault();
    choose(to[event.key], true);
  });
});

function rememberedPlace() {
  try {
    return Math.max(0, tabs.findIndex((tab) => tab.textContent === sessionStorage.getItem(remembered)));
  } catch {
    return 0;
  }
}

if (rememberedPlace() > 0) choose(rememberedPlace(), false);
else makeLive(0);
