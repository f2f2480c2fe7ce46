"use strict";
// The completions of a run: filtered, sorted, searched. All that a model wrote enters the page as text nodes.
jobs.push(blocks.then(({completions}) => {
  const {prompts, conditions, badges, differences, marked} = completions;
  const find = (id) => document.getElementById(id);
  if (!find("list")) return;
  const PAGE = 10;
  const el = (tag, attributes = {}, ...inside) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
    node.append(...inside.filter((part) => part !== null));
    return node;
  };
  const pair = ["moved", "native"].map((key) => conditions.findIndex((one) => one.key === key));
  const paired = differences.length > 0;
  const RANK = {intact: 0, success: 1, failed: 2};
  const kind = (c, i) => conditions[c].answers[i][1];
  const longest = (i) => Math.max(...conditions.map((one) => one.answers[i][0].length));
  // Words that one completion has and the other has not, as a share of both.
  const apart = prompts.map((_, i) => {
    if (!paired) return 0;
    const count = (pick) => differences[i].flatMap((side) => side.filter((_, k) => pick(k))).join("").length;
    return count((k) => k % 2) / Math.max(1, count(() => true));
  });
  const OUTCOMES = [["any", () => true], ...Object.entries(badges).map(([name, badge]) => [badge, (c, i) => kind(c, i) === name])];
  if (paired) {
    const only = (a, b) => (_, i) => kind(a, i) === "intact" && kind(b, i) !== "intact";
    OUTCOMES.push(["intact with moved alone", only(...pair)], ["intact with native alone", only(...[...pair].reverse())]);
  }
  const ORDERS = [["prompt number", () => 0], ["outcome, worst first", (c, i) => -RANK[kind(c, i)]],
    ["outcome, best first", (c, i) => RANK[kind(c, i)]], ["longest completion", (c, i) => -longest(i)]];
  if (paired) ORDERS.splice(1, 0, ["moved against native, most different", (c, i) => -apart[i]]);
  const options = (id, names) => find(id).append(...names.map((name, value) => el("option", {value}, name)));
  options("whose", conditions.map((one) => one.name));
  options("outcome", OUTCOMES.map(([name]) => name));
  options("order", ORDERS.map(([name]) => name));
  find("whose").value = Math.max(0, pair[0]);
  for (const [c, one] of conditions.entries()) {
    const box = el("input", {type: "checkbox", value: c});
    box.checked = box.defaultChecked = one.shown;
    box.addEventListener("change", () => show());
    find("shown").append(el("label", {class: "tick"}, box, name(c)));
  }
  find("whose").options[find("whose").value].defaultSelected = true;
  function name(c) {
    const mark = el("span", {class: "swatch", "aria-hidden": "true"}, conditions[c].mark);
    mark.style.color = conditions[c].colour;
    return el("span", {}, mark, conditions[c].name);
  }
  const texts = prompts.map((prompt, i) =>
    [prompt, ...conditions.flatMap((one) => [one.answers[i][0], one.answers[i][2]])].join("\n").toLowerCase());
  let wish = "", found = [], limit = PAGE;
  // A text with what is searched for marked.
  const hits = (text) => {
    const parts = [], low = text.toLowerCase();
    let at = 0;
    if (wish && low.length === text.length)
      for (let next; (next = low.indexOf(wish, at)) >= 0; at = next + wish.length)
        parts.push(text.slice(at, next), el("mark", {}, text.slice(next, next + wish.length)));
    return [...parts, text.slice(at)];
  };
  const pieces = (c, i) => {
    const side = pair.indexOf(c), [text] = conditions[c].answers[i];
    if (!paired || side < 0 || apart[i] === 0) return hits(text || "(nothing)");
    const whole = differences[i][side].map((piece, k) => piece && (k % 2 ? el("u", {}, ...hits(piece)) : hits(piece)));
    return text ? whole.flat() : ["(nothing)"];
  };
  const answer = (c, i) => {
    const [, verdict, reason] = conditions[c].answers[i];
    return el("div", {}, el("h4", {}, name(c), el("span", {class: "badge " + verdict}, badges[verdict])),
      el("pre", {dir: "auto"}, ...pieces(c, i)), reason ? el("p", {class: "soft"}, ...hits(reason)) : null);
  };
  const prompted = (i) => !marked[i] ? hits(prompts[i]) :
    marked[i].flatMap(([piece, steered]) => steered ? el("u", {}, ...hits(piece)) : hits(piece));
  const article = (i) => {
    const shown = [...find("shown").querySelectorAll(":checked")].map((box) => Number(box.value));
    const node = el("article", {tabindex: -1, "aria-labelledby": "prompt-" + i}, el("h3", {id: "prompt-" + i}, `Prompt ${i + 1}`),
      el("pre", {class: "prompt", dir: "auto"}, ...prompted(i)), el("div", {class: "answers"}, ...shown.map((c) => answer(c, i))));
    node.addEventListener("focus", () => rove(node));
    return node;
  };
  // One prompt of the list is in the order of tabs; arrow keys lead to the others.
  const rove = (node) => {
    for (const one of find("list").children) one.tabIndex = one === node ? 0 : -1;
  };
  function show() {
    find("list").replaceChildren(...found.slice(0, limit).map(article));
    rove(find("list").firstChild);
    const left = found.length - limit;
    find("more").hidden = find("rest").hidden = left <= 0;
    find("more").textContent = `Show ${Math.min(PAGE, left)} more`;
    find("none").hidden = found.length > 0;
    const some = Math.min(limit, found.length), of = found.length === prompts.length ? "" : ` of ${prompts.length}`;
    find("count").textContent = `${found.length}${of} prompts` + (left > 0 ? `, ${some} shown` : "");
  }
  function filter() {
    const whose = Number(find("whose").value), [, fits] = OUTCOMES[find("outcome").value], [, key] = ORDERS[find("order").value];
    wish = find("search").value.trim().toLowerCase();
    found = [...prompts.keys()].filter((i) => fits(whose, i) && (!wish || texts[i].includes(wish)));
    const keys = new Map(found.map((i) => [i, key(whose, i)]));
    found.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    limit = PAGE;
    show();
  }
  let waiting = 0;
  find("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
  for (const id of ["whose", "outcome", "order"]) find(id).addEventListener("change", filter);
  const further = (to) => {
    const at = limit;
    limit = to;
    show();
    find("list").children[at]?.focus();
  };
  find("more").addEventListener("click", () => further(limit + PAGE));
  find("rest").addEventListener("click", () => further(Infinity));
  find("clear").addEventListener("click", () => { find("tools").reset(); filter(); find("search").focus(); });
  find("tools").addEventListener("submit", (event) => { event.preventDefault(); filter(); find("list").firstChild?.focus(); });
  find("search").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    filter();
    find("list").firstChild?.focus();
  });
  find("list").addEventListener("keydown", (event) => {
    const all = [...find("list").children], at = all.indexOf(document.activeElement);
    const to = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1}[event.key];
    if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (to < 0) find("search").focus();
    else all[Math.min(to, all.length - 1)].focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
    event.preventDefault();
    find("search").focus();
  });
  find("tools").hidden = false;
  filter();
}));
