// Asks the server how the grid is, again and again, and shows it; the answer too, whenever that was fitted anew.
(() => {
  const EVERY_MS = 2000, MOST_MS = 30000;
  const at = (id) => document.getElementById(id);
  const make = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  let fitted = "", wait = EVERY_MS;

  async function ask(path) {
    const answer = await fetch(path, { credentials: "same-origin", cache: "no-store" });
    if (answer.status === 204) return null;
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(content.error || `the server answers ${answer.status}`);
    return content;
  }

  function showStages(stages) {
    at("stages").tBodies[0].replaceChildren(...stages.map((stage) => {
      const row = make("tr");
      row.append(make("td", stage.name));
      for (const value of [`${stage.done.toLocaleString("en-US")} of ${stage.total.toLocaleString("en-US")}`, stage.failed, stage.left]) {
        row.append(make("td", String(value), "num"));
      }
      row.append(make("td", stage.now));
      return row;
    }));
  }

  // Squares are made once, and change their class afterwards.
  function showCells(rows) {
    const host = at("cells");
    if (host.childElementCount !== rows.length) {
      host.replaceChildren(...rows.map((row) => {
        const line = make("div", undefined, "cells");
        const squares = make("span", undefined, "squares");
        squares.setAttribute("aria-hidden", "true");
        squares.append(...row.titles.map((title) => {
          const square = make("i");
          square.title = title;
          return square;
        }));
        line.append(make("span", row.name, "name"), squares, make("span", "", "count"));
        return line;
      }));
    }
    rows.forEach((row, i) => {
      const [, squares, count] = host.children[i].children;
      row.states.forEach((state, k) => { squares.children[k].className = state; });
      const done = row.states.filter((state) => state === "done").length;
      count.textContent = `${done} of ${row.states.length}`;
    });
  }

  // What a reader has opened stays open.
  function showFailures(failures) {
    const host = at("failures"), open = new Set([...host.querySelectorAll("details[open]")].map((one) => one.dataset.id));
    at("failed").hidden = failures.length === 0;
    host.replaceChildren(...failures.map((failure) => {
      const fold = make("details", undefined, "fold"), trace = make("pre", failure.traceback);
      fold.dataset.id = failure.id;
      fold.open = open.has(failure.id);
      trace.tabIndex = 0;
      fold.append(make("summary", `${failure.cell}: ${failure.error}`), trace);
      return fold;
    }));
  }

  function showState(state) {
    at("driver").textContent = state.driver;
    at("whole").value = state.share;
    at("whole-text").textContent = state.whole;
    at("cost").textContent = state.cost;
    showStages(state.stages);
    showCells(state.cells);
    showFailures(state.failures);
  }

  async function showAnswer() {
    const found = await ask(`answer?have=${encodeURIComponent(fitted)}`);
    if (!found) return;
    const form = at("question"), typed = form ? Object.fromEntries([...form.elements].map((field) => [field.name, field.value])) : {};
    const focus = document.activeElement && document.activeElement.name;
    at("result").innerHTML = found.html;  // the server's own, in which all that others wrote is escaped
    at("fitted").textContent = found.when;
    for (const [name, value] of Object.entries(typed)) if (at("question")) at("question").elements[name].value = value;
    if (focus && at("question") && at("question").elements[focus]) at("question").elements[focus].focus();
    fitted = found.version;
    await equigrid.page.show(found.panels, found.table);
  }

  async function turn() {
    try {
      showState(await ask("state"));
      await showAnswer();
      at("trouble").hidden = true;
      wait = EVERY_MS;
    } catch (error) {
      at("trouble").textContent = `Not up to date: ${error.message}. Trying again.`;
      at("trouble").hidden = false;
      wait = Math.min(2 * wait, MOST_MS);
    }
    document.documentElement.dataset.turned = "yes";
    setTimeout(turn, wait);
  }
  turn();
})();
