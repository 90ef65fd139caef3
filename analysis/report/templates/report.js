// Draws the interactive figures in place of their still images, each when it is first seen; opens the folded part that a
// link leads to, and all of them to print. Without scripts, or in an old browser, the still images remain.
window.equigrid = window.equigrid || {};
equigrid.page = (() => {
  const nonce = document.currentScript && document.currentScript.nonce;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const printing = window.matchMedia("print");
  let figures = {}, drawing = 0, loaded = null;

  // Plotly's script is carried compressed, so that the file stays small.
  function plotly() {
    loaded = loaded || (async () => {
      const packed = document.getElementById("plotly-gz");
      if (!packed || !packed.textContent.trim() || typeof DecompressionStream === "undefined") return false;
      const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.nonce = nonce || "";
      script.textContent = await new Response(stream).text();
      document.head.appendChild(script);
      return true;
    })();
    return loaded;
  }

  // The colours of the page: black marks take the colour of its text.
  function themed(panel) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
    const text = JSON.stringify(panel).replaceAll('"#000000"', JSON.stringify(ink)).replaceAll('"#DDDDDD"', JSON.stringify(line));
    const own = JSON.parse(text);
    own.layout.font.color = ink;
    own.layout.plot_bgcolor = "rgba(0,0,0,0)";
    return own;
  }

  async function draw(id, panels) {
    const host = document.getElementById(id);
    if (!host || !(await plotly())) return;
    const grid = document.createElement("div");
    grid.className = "panels";
    for (const panel of panels) {
      const div = document.createElement("div");
      div.className = "panel";
      div.tabIndex = 0;
      div.setAttribute("role", "img");
      div.setAttribute("aria-label", `${panel.title.replaceAll("<br>", ", ")}: ${panel.layout.yaxis.title.text} against `
        + `${panel.layout.xaxis.title.text}; the numbers are in the tables below`);
      grid.appendChild(div);
    }
    host.replaceChildren(grid);
    for (let i = 0; i < panels.length; i++) {
      const own = themed(panels[i]);
      await Plotly.newPlot(grid.children[i], own.data, own.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    }
  }

  async function drawVisible() {
    document.documentElement.dataset.drawn = "no";
    drawing += 1;
    for (const [id, figure] of Object.entries(figures)) {
      const host = document.getElementById(id);
      if (figure.drawn || !host || host.closest("details:not([open])")) continue;
      figure.drawn = true;
      await draw(id, figure.panels);
    }
    drawing -= 1;
    if (!drawing) document.documentElement.dataset.drawn = "yes";
  }

  function redraw() {
    for (const figure of Object.values(figures)) figure.drawn = false;
    drawVisible();
  }

  function opened(hash) {
    const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (target) target.scrollIntoView();
  }

  const read = (id) => {
    const found = document.getElementById(id);
    return found ? JSON.parse(found.textContent) : null;
  };

  function start() {
    return show(read("panels") || {}, read("amount-table"));
  }

  // Once in a report, again and again in a page that is watched.
  function show(panels, table) {
    figures = Object.fromEntries(Object.entries(panels).map(([id, each]) => [id, { panels: each, drawn: false }]));
    if (table) equigrid.ask.start(table);
    return drawVisible();
  }

  document.addEventListener("toggle", (event) => { if (event.target.open) drawVisible(); }, true);
  window.addEventListener("hashchange", () => opened(location.hash));
  window.addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
  dark.addEventListener("change", redraw);
  printing.addEventListener("change", redraw);
  return { start, show, opened, draw: drawVisible };
})();
