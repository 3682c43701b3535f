// While the experiment runs the page loads itself anew, unless the reader unticks that or is typing.
const reload = document.getElementById("reload");
if (reload) setInterval(() => {
  const isTyping = document.activeElement instanceof HTMLInputElement && document.activeElement !== reload;
  if (reload.checked && !document.hidden && !isTyping) location.reload();
}, 1000 * Number(reload.dataset.seconds));
