// What scrolls sideways can be reached, and scrolled, by keyboard.
const sized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll(".scroll").forEach((box) => sized.observe(box));
startFigures();
return redrawAll;
