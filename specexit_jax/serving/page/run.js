// One answer as it is written: thinking, where it stopped, the answer, and the signals.
import { Chart } from "./chart.js";
import { at, element, set } from "./elements.js";
import { Meters } from "./meters.js";
import * as sentences from "./sentences.js";
import { fill } from "./table.js";
import { percent, tokens } from "./words.js";

const ABOVE = 60; // pixels of thinking that are shown above the mark
const NEAR = 8; // pixels from the end at which the thinking keeps scrolling

export class Run {
  constructor(title, signals) {
    this.box = set(at("run").content.firstElementChild.cloneNode(true), { "aria-label": title });
    this.box.querySelector("h2").textContent = title;
    this.signals = signals;
    this.thinking = this.answer = "";
    this.other = null; // a run of the same seed that has ended
    this.spared = null; // the thinking that the other one did without
    this.finished = null; // the last block
    this.cut = false; // whether it ended at its longest
    this.ended = () => {};
  }

  get total() {
    return this.finished.tokens.thinking + this.finished.tokens.answer;
  }

  part(name) {
    return this.box.querySelector(`.${name}`);
  }

  take(chunk) {
    const [choice] = chunk.choices;
    if (!choice) return;
    const { begin, live, ...last } = choice.specexit;
    if (begin?.policy) this.watch(begin.policy);
    if (choice.delta.reasoning) this.think(choice.delta.reasoning);
    if (choice.delta.content) this.say(choice.delta.content);
    if (live && this.chart) this.see(live);
    if (choice.finish_reason) this.end(last, choice.finish_reason === "length");
  }

  watch(policy) {
    if (policy.epsilon !== null) this.box.querySelector("h2").append(` at a risk of ${percent(policy.epsilon)}`);
    this.part("signals").hidden = false;
    this.meters = new Meters(this.part("meters"), this.signals, policy.thresholds);
    this.chart = new Chart(this.box.querySelector("figure"), this.signals, policy.thresholds, policy.boundaries);
  }

  think(words) {
    const box = this.part("thinking"), follow = box.scrollHeight - box.clientHeight - box.scrollTop < NEAR;
    this.thinking += words;
    (this.spared ?? box).append(element("span", "fresh", words));
    this.mark();
    if (follow) box.scrollTop = box.scrollHeight;
  }

  say(words) {
    this.answer += words;
    this.part("answer").append(words);
  }

  see(live) {
    this.chart.boundaries.push(...live.boundaries);
    if (live.exit) this.stop(live.exit);
    else if (live.thinking && live.signals) this.read(live.tokens, live.signals);
    this.chart.draw();
  }

  read(token, values) {
    this.meters.show(values);
    this.chart.add(token, values);
  }

  stop({ token, signals }) {
    this.chart.exit = token;
    if (signals && Object.keys(signals).length) this.read(token, signals);
    this.tell(sentences.stopped(token));
  }

  tell(sentence) {
    this.part("stopped").textContent = sentence;
    this.part("stopped").hidden = false;
  }

  end(block, cut) {
    this.finished = block;
    this.cut = cut;
    if (this.chart) {
      if (block.exit) this.stop(block.exit);
      else if (block.signals) this.read(block.tokens.thinking, block.signals);
      this.chart.draw();
      fill(this.box.querySelector("table"), this.signals, this.chart.points);
    }
    this.tell(sentences.ending(block));
    this.part("facts").textContent = sentences.facts(block, cut);
    if (block.unstopped) this.save(block.unstopped, "about ");
    if (this.spared) this.part("thinking").scrollTop = this.part("mark").offsetTop - ABOVE;
    this.ended();
  }

  // unstopped: the tokens of a run without the exit. sure: how sure they are, as in `sentences.saving`.
  save(unstopped, sure) {
    const longest = Math.max(unstopped, this.total), saved = unstopped - this.total;
    const share = saved > 0 ? ` (${sure}${percent(saved / unstopped, 2)} saved)` : "";
    this.tell(`${sentences.ending(this.finished)}: ${sentences.saving(saved, sure)}`);
    this.part("saving").replaceChildren(
      ...bar(`with the exit: ${tokens(this.total)}`, this.total / longest, "bar own"),
      ...bar(`without: ${sure}${tokens(unstopped)}${share}`, unstopped / longest, "bar"),
    );
    this.part("saving").hidden = false;
  }

  // Shows from now on where the other run stopped.
  compare(other) {
    this.other = other;
    this.mark();
  }

  mark() {
    if (!this.other?.finished.exit || this.spared || !this.thinking.startsWith(this.other.thinking)) return;
    const kept = this.other.thinking;
    this.spared = element("span", "spared", this.thinking.slice(kept.length));
    this.part("thinking").replaceChildren(kept, element("span", "mark", "The run with exits stopped here"), this.spared);
  }
}

function bar(words, share, name) {
  const made = set(element("div", name), { "aria-hidden": "true" });
  made.style.width = `${100 * share}%`;
  return [element("div", "", words), made];
}
