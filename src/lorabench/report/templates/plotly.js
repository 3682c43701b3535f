// plotly is unpacked once the page is shown.
let plotly = null;

async function unpackPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly-packed").textContent.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();
  return window.Plotly;
}

const loadPlotly = () => (plotly ??= unpackPlotly());
