// The slider of certified risks.
import { at, element } from "./elements.js";
import * as sentences from "./sentences.js";
import { percent } from "./words.js";

const USUAL = 0.01; // the risk that is chosen at first, or the one nearest to it

export class Risk {
  constructor(offer) {
    this.signals = offer.signals;
    this.stops = offer.epsilons;
    this.slider = at("epsilon");
    at("risk").hidden = !Object.keys(offer.signals).length;
    at("stops").hidden = !this.stops.length;
    const away = this.stops.map((stop) => Math.abs(Math.log(stop.epsilon / USUAL)));
    this.slider.max = Math.max(this.stops.length - 1, 0);
    this.slider.value = Math.max(away.indexOf(Math.min(...away)), 0);
    this.slider.hidden = at("ends").hidden = this.stops.length < 2;
    const ends = this.stops.length ? [this.stops[0], this.stops.at(-1)] : [];
    at("ends").replaceChildren(...ends.map((stop) => element("span", "", percent(stop.epsilon))));
    at("marks").replaceChildren(...this.stops.map((_, place) => new Option("", place)));
    this.slider.oninput = () => this.tell();
    this.tell();
  }

  get stop() {
    return this.stops[Number(this.slider.value)];
  }

  // undefined where nothing is certified.
  get epsilon() {
    return this.stop?.epsilon;
  }

  tell() {
    const { stop } = this;
    at("certificate").textContent = stop ? sentences.risk(stop, this.signals) : "This exit policy is not certified for any risk.";
    if (!stop) return;
    at("allowed").textContent = percent(stop.epsilon);
    this.slider.setAttribute("aria-valuetext", percent(stop.epsilon));
  }
}
