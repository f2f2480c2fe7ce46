// The explorer's page, in a notebook and in a browser. It talks to a session by messages (see explorer/session.py) through a
// channel {send(message), stop(), onmessage}, and shows all text by textContent.
const TYPED = 250, SLID = 100, SILENT = 8000; // milliseconds
const WHAT = {
  projection: "component along the vector", change: "change of the next-token prediction",
};

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

let explorers = 0;

function startExplorer(root, channel) {
  const unique = `it${++explorers}-${Math.random().toString(36).slice(2, 8)}`;
  let about = null, state = null, run = null, runs = 0, timer = null, watch = null, lastEvent = 0, code = "";
  const panels = new Map(), ui = {};

  const field = (name, label, control, note = null) => {
    control.id = `${unique}-${name}`;
    ui[name] = control;
    const hint = note === null ? null : make("small", {id: `${control.id}-note`}, note);
    if (hint) control.setAttribute("aria-describedby", hint.id);
    return make("div", {class: `it-field it-${name}`}, make("label", {for: control.id}, label), control, hint);
  };
  const options = (select, values, chosen) => {
    select.replaceChildren(...values.map(([value, label]) => make("option", {value}, label)));
    select.value = chosen;
  };
  const theme = () => {
    let place = root, colour = "";
    while (place && (!colour || /, 0\)$|transparent/.test(colour))) {
      colour = getComputedStyle(place).backgroundColor;
      place = place.parentElement;
    }
    const [r, g, b] = (/, 0\)$|transparent/.test(colour) ? "rgb(255,255,255)" : colour).match(/[\d.]+/g).map(Number);
    root.dataset.theme = 0.3 * r + 0.59 * g + 0.11 * b < 128 ? "dark" : "light";
  };

  // A slider and a number that show the same.
  const slider = (name, label, low, high, step, value, changed, note = null) => {
    const range = make("input", {type: "range", min: low, max: high, step, "aria-label": `${label}, slider`});
    const number = make("input", {type: "number", min: name === "strength" ? -1000 : low,
      max: name === "strength" ? 1000 : high, step: name === "strength" ? "any" : step});
    const set = (to) => { range.value = to; number.value = to; };
    range.addEventListener("input", () => { number.value = range.value; changed(Number(range.value), SLID); });
    number.addEventListener("input", () => {
      if (number.value === "" || !number.checkValidity()) return;
      range.value = number.value;
      changed(Number(number.value), TYPED);
    });
    set(value);
    const whole = field(name, label, number, note);
    whole.classList.add("it-slider");
    number.after(range);
    ui[name] = {range, number, set, whole};
    return whole;
  };

  function build() {
    root.replaceChildren();
    root.classList.add("it-explorer");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "Explorer");
    theme();
    const two = "target" in about.models;
    const examples = make("select", {onchange: () => {
      if (examples.value === "") return;
      const prompt = about.prompts[Number(examples.value)];
      ui.prompt.value = prompt.text;
      if (ui.chat) ui.chat.checked = prompt.chat;
      change({example: Number(examples.value), prompt: "", chat: prompt.chat}, 0);
    }});
    const list = about.prompts.map((prompt, k) => [String(k), `${k + 1}: ${prompt.label}`]);
    options(examples, [["", "written below"], ...list], state.example === null ? "" : String(state.example));
    const prompt = make("textarea", {rows: 3, spellcheck: "false", dir: "auto", oninput: () => written(TYPED)});
    const shown = state.example === null ? state : about.prompts[state.example];
    prompt.value = state.example === null ? state.prompt : shown.text;
    const chat = make("input", {type: "checkbox", id: `${unique}-chat`, onchange: () => written(0)});
    chat.checked = shown.chat;
    ui.chat = chat;
    const written = (wait) => {
      examples.value = "";
      change({example: null, prompt: prompt.value, chat: chat.checked}, wait);
    };
    const item = make("select", {onchange: () => {
      change({item: item.value, source_block: null, target_block: null}, 0);
      sites();
    }});
    options(item, about.items.map((one) => [one.name, one.label]), state.item);
    const positions = make("select", {onchange: () => change({positions: positions.value}, 0)});
    options(positions, about.positions.map((one) => [one, one]), state.positions);
    const colour = make("select", {onchange: () => change({colour: colour.value}, 0)});
    options(colour, [["", "nothing"], ...about.readings.map((one) => [one, WHAT[one] || one])], state.colour);
    const view = make("select", {onchange: () => change({view: view.value}, 0)});
    options(view, [
      ["models", two ? "both models, without and with it" : "the model, without and with it"],
      ["vectors", two ? "the target: moved, native and random vector" : "the vector, and a random one of its length"],
    ], state.view);
    const reach = Math.max(4, 2 * Math.abs(state.strength));
    const live = !about.slow;
    const form = make("form", {class: "it-controls", onsubmit: (event) => { event.preventDefault(); begin(0); }},
      make("div", {class: "it-row"}, field("examples", "Example", examples)),
      field("prompt", "Prompt", prompt),
      live ? make("div", {class: "it-row"},
        field("item", "Add", item),
        slider("strength", "Strength", -reach, reach, 0.05, state.strength, (to, wait) => change({strength: to}, wait)),
        ...Object.keys(about.models).map((side) => slider(`${side}_block`, two ? `Block of the ${side}` : "Block", 0,
          about.models[side].blocks - 1, 1, 0, (to, wait) => change({[`${side}_block`]: to}, Math.max(wait, 300)), "")),
        field("positions", "At tokens", positions)) : null,
      live ? make("div", {class: "it-row"},
        field("view", "Show", view),
        field("colour", "Colour tokens by", colour),
        slider("tokens", "New tokens", 1, 200, 1, state.max_new_tokens, (to, wait) => change({max_new_tokens: to}, wait)),
      ) : null,
      make("div", {class: "it-buttons"},
        make("button", {type: "submit"}, "Generate"),
        ui.stop = make("button", {type: "button", disabled: true, onclick: () => stop("Stopped.")}, "Stop"),
        ui.copy = make("button", {type: "button", onclick: copy}, "Copy as code"),
        make("span", {class: "it-tick"}, chat, make("label", {for: chat.id}, "prompt is a chat message"))));
    ui.status = make("p", {class: "it-status", role: "status"});
    ui.error = make("p", {class: "it-error", role: "alert"});
    ui.panels = make("div", {class: "it-panels"});
    ui.legend = make("p", {class: "it-legend", hidden: true});
    ui.code = make("code", {tabindex: 0});
    ui.details = make("details", {class: "it-code"}, make("summary", {}, "The Python that does this"), make("pre", {}, ui.code));
    ui.tip = make("div", {class: "it-tip", role: "tooltip", id: `${unique}-tip`, hidden: true});
    const names = Object.values(about.models).map((model) => model.name).join(" \u2192 ");
    root.append(make("p", {class: "it-title"}, names), about.slow ? make("p", {class: "it-slow"}, about.slow) : "",
      form, ui.status, ui.error, ui.panels, ui.legend, ui.details, ui.tip);
    if (live) sites();
  }

  // The block sliders of what is added: where it is, and why it cannot be elsewhere.
  function sites() {
    const item = about.items.find((one) => one.name === state.item);
    for (const side of Object.keys(about.models)) {
      const {range, number, set, whole} = ui[`${side}_block`], site = item.sites[side];
      set(state[`${side}_block`] ?? site.block ?? 0);
      range.disabled = number.disabled = site.fixed !== "";
      whole.querySelector("small").textContent = site.fixed;
    }
  }

  function change(fields, wait) {
    state = {...state, ...fields};
    begin(wait);
  }

  function begin(wait) {
    clearTimeout(timer);
    if (run !== null) stop("");
    timer = setTimeout(() => {
      theme();
      run = `${unique}-${++runs}`;
      ui.error.textContent = "";
      ui.status.textContent = "Generating \u2026";
      ui.stop.disabled = false;
      lastEvent = Date.now();
      clearInterval(watch);
      let asked = false;
      watch = setInterval(() => {
        const silent = Date.now() - lastEvent;
        if (silent > 2 * SILENT) gone("There is no answer: the kernel is busy with another cell, or it has ended.");
        else if (silent > SILENT && !asked && channel.pings) { asked = true; channel.send({type: "ping"}); }
        if (silent < SILENT) asked = false;
      }, 1000);
      channel.send({type: "run", run, state});
    }, wait);
  }

  function finish(text) {
    clearInterval(watch);
    run = null;
    ui.stop.disabled = true;
    ui.status.textContent = text;
    for (const {body} of panels.values()) body.removeAttribute("aria-busy");
  }

  function stop(text) {
    channel.stop();
    finish(text);
  }

  function gone(text) {
    finish("");
    ui.error.textContent = `${text} What you see is its last state; run the cell, or start the explorer, again.`;
  }

  async function copy() {
    ui.details.open = true;
    try {
      await navigator.clipboard.writeText(code);
      ui.status.textContent = "The code is copied.";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(ui.code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      ui.status.textContent = "Press Ctrl+C: the code below is selected.";
    }
  }

  function showPanels(event) {
    panels.clear();
    ui.panels.replaceChildren(...event.panels.map(({key, side, what, at}) => {
      const body = make("div", {class: "it-text", dir: "auto", "aria-live": "polite", "aria-busy": "true"});
      panels.set(key, {body});
      return make("section", {class: `it-panel it-${side}${what === "unsteered" ? " it-plain" : ""}`, "aria-label": key},
        make("p", {class: "it-head"}, key), make("p", {class: "it-at"}, at), body);
    }));
    ui.legend.hidden = true;
    code = event.code;
    ui.code.textContent = code;
    ui.copy.disabled = code === "";
    ui.details.hidden = code === "";
  }

  function showTokens(event) {
    const panel = panels.get(event.panel);
    if (!panel) return;
    const one = (token, prompt) => {
      const share = token.value === null ? 0 : Math.max(-1, Math.min(1, token.value / event.most));
      const span = make("span", {class: `it-token${prompt ? " it-asked" : ""}`, tabindex: -1}, token.text);
      span.style.setProperty("--a", Math.abs(share).toFixed(3));
      span.style.setProperty("--hue", `var(--${share < 0 ? "source" : "target"})`);
      span.addEventListener("mouseenter", () => showTip(span, token, event.what));
      span.addEventListener("mouseleave", hideTip);
      span.addEventListener("focus", () => showTip(span, token, event.what));
      span.addEventListener("blur", hideTip);
      return span;
    };
    const spans = [...event.prompt.map((token) => one(token, true)), ...event.tokens.map((token) => one(token, false))];
    panel.body.replaceChildren(...spans);
    const first = spans[event.prompt.length] || spans[0];
    if (first) first.tabIndex = 0;
    // One stop for the Tab key in each panel; arrows move from token to token.
    panel.body.onkeydown = (key) => {
      const k = spans.indexOf(document.activeElement === root ? null : root.getRootNode().activeElement);
      const to = {ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: spans.length - 1}[key.key];
      if (key.key === "Escape") hideTip();
      if (k < 0 || to === undefined || !spans[to]) return;
      key.preventDefault();
      spans[k].tabIndex = -1;
      spans[to].tabIndex = 0;
      spans[to].focus();
    };
    ui.legend.textContent = `Colours: ${event.what}, orange above 0, blue below; point at a token, or move with Tab and arrow ` +
      "keys. Italic text is the prompt.";
    ui.legend.hidden = false;
  }

  function showTip(span, token, what) {
    const value = token.value === null ? "none: the first token is not predicted" : String(token.value);
    const rows = (token.changes || []).map(([text, before, after]) => make("tr", {}, make("th", {scope: "row"}, text),
      make("td", {}, percent(before)), make("td", {}, percent(after))));
    ui.tip.replaceChildren(make("p", {}, `${what}: ${value}`));
    if (rows.length) ui.tip.append(make("table", {}, make("thead", {}, make("tr", {}, make("th", {scope: "col"}, "instead"),
      make("th", {scope: "col"}, "before"), make("th", {scope: "col"}, "after"))), make("tbody", {}, ...rows)));
    ui.tip.hidden = false;
    span.setAttribute("aria-describedby", ui.tip.id);
    const at = span.getBoundingClientRect(), frame = root.getBoundingClientRect();
    const left = Math.min(at.left - frame.left, frame.width - ui.tip.offsetWidth - 4);
    ui.tip.style.left = `${Math.max(0, left)}px`;
    ui.tip.style.top = `${at.bottom - frame.top + 4}px`;
  }

  function hideTip() {
    ui.tip.hidden = true;
    for (const span of root.querySelectorAll("[aria-describedby='" + ui.tip.id + "']")) span.removeAttribute("aria-describedby");
  }

  const percent = (share) => share < 0.0005 ? "<0.1%" : `${(100 * share).toFixed(1)}%`;

  const handlers = {
    hello: (event) => {
      about = event.about;
      state = about.state;
      build();
      if (about.last) show(about.last);
      else begin(0);
    },
    status: (event) => { ui.status.textContent = `${event.text} \u2026`; },
    start: (event) => { ui.status.textContent = "Generating \u2026"; showPanels(event); },
    text: (event) => panels.get(event.panel)?.body.append(event.text),
    end: (event) => panels.get(event.panel)?.body.removeAttribute("aria-busy"),
    tokens: showTokens,
    error: (event) => {
      const panel = panels.get(event.panel);
      if (panel) panel.body.append(make("p", {class: "it-error"}, event.text));
      else { if (ui.error) { ui.error.textContent = event.text; finish(""); } else root.textContent = event.text; }
    },
    stopped: () => finish("Stopped."),
    finished: (event) => finish(event.first === null || event.first === 0 ? "Done."
      : `Done: first token after ${event.first.toFixed(2)} s, all after ${event.seconds.toFixed(2)} s.`),
    gone: (event) => gone(event.text),
    closed: () => { if (run !== null) gone("The answer has ended early."); },
    pong: () => {},
  };

  // A state that is known already: a second view of one explorer, or a page that is opened again.
  function show(last) {
    showPanels(last);
    for (const [key, text] of Object.entries(last.texts)) panels.get(key)?.body.append(text);
    for (const [key, read] of Object.entries(last.read)) showTokens({...read, panel: key});
    finish("");
  }

  channel.onmessage = (event) => {
    lastEvent = Date.now();
    if (event.run !== undefined && event.run !== run) return;
    handlers[event.type]?.(event);
  };
  root.textContent = "Waiting for the model \u2026";
  channel.send({type: "hello"});
  return () => { clearTimeout(timer); clearInterval(watch); channel.stop(); };
}

// In a notebook: anywidget calls render. The last state, a plain output of the same cell, is hidden while the widget is there.
function renderWidget({model, el}, mark) {
  const root = make("div"), hide = make("style", {}, `.${mark} { display: none; }`);
  document.head.append(hide);
  el.append(root);
  const channel = {pings: true, send: (message) => model.send(message), stop: () => model.send({type: "stop"})};
  const receive = (message) => channel.onmessage(message);
  model.on("msg:custom", receive);
  const end = startExplorer(root, channel);
  return () => { end(); model.off("msg:custom", receive); hide.remove(); };
}

// In a browser: each message is a request, whose answer is a line of JSON for each event.
function startLocal(root) {
  const token = new URLSearchParams(location.search).get("token");
  let request = null;
  const channel = {
    pings: false,
    stop: () => { request?.abort(); request = null; },
    send: async (message) => {
      if (message.type === "run") channel.stop();
      const own = new AbortController();
      if (message.type === "run") request = own;
      try {
        const answer = await fetch("message", {method: "POST", body: JSON.stringify(message), signal: own.signal,
          headers: {"Content-Type": "application/json", "Authorization": `Bearer ${token}`}});
        if (!answer.ok) throw new Error(`the server refuses: ${answer.status}`);
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = "", done = false; !done;) {
          const part = await reader.read();
          done = part.done;
          const lines = (rest + (part.value || "")).split("\n");
          rest = lines.pop();
          for (const line of lines) channel.onmessage(JSON.parse(line));
        }
        if (request === own) {
          request = null;
          channel.onmessage({type: "closed"});
        }
      } catch (error) {
        if (own.signal.aborted) return;
        channel.onmessage({type: "gone", text: `The server has ended or cannot be reached (${error.message}).`});
      }
    },
  };
  startExplorer(root, channel);
}

const localRoot = document.getElementById("interp-transfer-explorer");
if (localRoot) startLocal(localRoot);
