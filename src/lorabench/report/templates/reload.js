// The page loads itself anew while the experiment runs, unless the reader unticks that or is in the middle of something:
// every so many seconds from disk; as soon as it is another one where `lorabench watch` serves it.
const reload = document.getElementById("reload");
let isNewer = false;

function isInUse() {
  const isTyping = document.activeElement instanceof HTMLInputElement && document.activeElement !== reload;
  return isTyping || document.querySelector("dialog[open]") !== null || !document.getSelection().isCollapsed;
}

function listen() {
  const status = document.getElementById("live");
  const events = new EventSource("events");
  events.onopen = () => { status.textContent = "live"; };
  events.onerror = () => { status.textContent = "lorabench watch does not answer; this page stands still"; };
  events.addEventListener("version", (event) => { isNewer = event.data !== reload.dataset.version; });
  events.addEventListener("steps", (event) => {
    const steps = JSON.parse(event.data);
    for (const item of document.querySelectorAll("[data-under-way]")) {
      item.textContent = steps[item.dataset.underWay] ?? item.textContent;
    }
  });
}

if (reload) {
  if (reload.dataset.version) listen();
  else setInterval(() => { isNewer = true; }, 1000 * Number(reload.dataset.seconds));
  setInterval(() => {
    if (isNewer && reload.checked && !document.hidden && !isInUse()) location.reload();
  }, 1000);
}
