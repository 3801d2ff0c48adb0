// The page: a form that asks, one or two runs that answer, and one line that says what goes on.
import { at, element } from "./elements.js";
import { paced } from "./pace.js";
import { Risk } from "./risk.js";
import { Run } from "./run.js";
import * as sentences from "./sentences.js";
import { Failure, chunks, offered } from "./server.js";
import { spaced } from "./words.js";

const SLOW = 40; // tokens a second
const byFinger = matchMedia("(pointer: coarse)").matches; // where Enter is the only way to begin a line
let offer = null, risk = null, asking = null;

function say(sentence, wrong = false) {
  at("status").textContent = sentence;
  at("status").classList.toggle("wrong", wrong);
}

function fail(failure) {
  say(failure instanceof Failure ? failure.message : `The page made a mistake: ${failure.message}`, true);
  if (failure.status !== 401) return;
  at("keyed").hidden = false;
  at("key").focus();
}

async function open() {
  const model = await offered(at("key").value);
  offer = model.specexit;
  risk = new Risk(offer);
  at("model").textContent = `: ${model.id}`;
  at("besides").hidden = !plain();
  at("examples").hidden = !Object.keys(offer.examples).length;
  at("examples").replaceChildren(at("such"), ...Object.entries(offer.examples).map(example));
}

// The method that never exits, of a model that does.
function plain() {
  const others = offer.methods.filter((name) => name !== offer.default && name !== "nothink");
  return Object.keys(offer.signals).length ? others[0] : undefined;
}

function example([name, question]) {
  const made = element("button", "", spaced(name));
  made.type = "button";
  made.title = question;
  made.onclick = () => {
    at("question").value = question;
    ask();
  };
  return made;
}

async function ask() {
  if (offer && !at("ask").reportValidity()) return;
  asking?.abort();
  const own = (asking = new AbortController());
  begin();
  try {
    if (!offer) await open();
    own.signal.throwIfAborted();
    if (!at("ask").reportValidity()) throw new Failure("Write a question first.");
    const runs = started();
    if (at("status").getBoundingClientRect().top > innerHeight / 2) at("status").scrollIntoView();
    await Promise.all(runs.map(({ run, body }) => follow(run, body, own.signal)));
    if (asking === own) finish(...runs.map(({ run }) => run));
  } catch (failure) {
    if (asking !== own) return;
    own.abort();
    if (failure.name === "AbortError") say("Stopped by you.");
    else fail(failure);
  }
  if (asking === own) rest();
}

function begin() {
  at("stop").hidden = false;
  if (document.activeElement === at("go")) at("stop").focus();
  say("Thinking …");
}

function rest() {
  asking = null;
  if (document.activeElement === at("stop")) at("go").focus();
  at("stop").hidden = true;
}

// The runs that a question asks for, on the page.
function started() {
  const seed = at("seed").value ? Number(at("seed").value) : crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  const asked = (own) => ({ messages: [{ role: "user", content: at("question").value }], seed, specexit: own });
  const certified = risk.epsilon === undefined ? {} : { epsilon: risk.epsilon };
  const run = new Run(plain() ? "With exits" : "Answer", offer.signals);
  const runs = [{ run, body: asked({ method: offer.default, ...certified }) }];
  if (plain() && at("beside").checked) {
    const other = new Run("Without exits", offer.signals);
    run.ended = () => other.compare(run);
    runs.push({ run: other, body: asked({ method: plain() }) });
  }
  run.box.classList.toggle("alone", runs.length === 1);
  at("runs").replaceChildren(...runs.map((one) => one.run.box));
  return runs;
}

async function follow(run, body, signal) {
  const stream = chunks(body, at("key").value, signal);
  for await (const chunk of at("slowly").checked ? paced(stream, SLOW, signal) : stream) run.take(chunk);
}

// other: the run without exits, if there is one.
function finish(run, other) {
  if (other?.spared) run.save(other.total, other.cut ? "at least " : "");
  say(other ? sentences.together(run, other) : sentences.alone(run));
}

at("ask").onsubmit = (event) => {
  event.preventDefault();
  ask();
};
at("question").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || byFinger) return;
  event.preventDefault();
  ask();
};
at("stop").onclick = () => asking?.abort();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") asking?.abort();
});
at("slowly").checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
open().catch(fail);
