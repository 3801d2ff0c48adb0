// What the page says of risks and of runs.
import { limit, percent, readings, seconds, tokens, whole } from "./words.js";

const LONG = 60; // letters of an answer that a sentence does not repeat

// Of one of the certified risks of /v1/models.
export function risk(stop, signals) {
  const sure = percent(1 - stop.delta);
  const held = `At most ${percent(stop.epsilon)} of problems turn from right to wrong, with probability ${sure}.`;
  const tested = ` Of ${whole(stop.problems)} problems of the ${stop.split} split ${whole(stop.harmed)} did.`;
  const cost = stop.tokens_ratio === null ? "" : ` About ${percent(stop.tokens_ratio, 2)} of the tokens remain.`;
  const limits = readings(signals, stop.thresholds, limit);
  return `${held}${tested}${cost} ${limits.length ? `It exits where ${limits.join(" and ")}.` : "It exits at the first boundary."}`;
}

export function ending({ closed, exit, tokens: { thinking } }) {
  if (closed === "model") return `The model ended its thinking, at token ${whole(thinking)}`;
  if (!exit) return "The thinking did not end";
  return closed === "budget" ? `Stopped here by the budget, at token ${whole(exit.token)}` : stopped(exit.token);
}

export function stopped(token) {
  return `Stopped here, at token ${whole(token)}`;
}

// sure: "about " of an estimate, "at least " of a run that was cut, "" of a run that ended.
export function saving(saved, sure) {
  return saved > 0 ? `${sure}${tokens(saved)} saved` : "no token saved";
}

export function facts(block, cut) {
  const { thinking, answer } = block.tokens;
  const counted = `${tokens(thinking + answer)}: ${whole(thinking)} of thinking, ${whole(answer)} of answer`;
  const speed = `took ${seconds(block.seconds.total)}, ${block.tau.toFixed(1)} tokens a step, seed ${block.seed}.`;
  return [`${counted}; ${speed}`, cut ? "Cut at the longest answer." : "", certificate(block.policy)].filter(Boolean).join(" ");
}

function certificate(policy) {
  if (!policy || policy.epsilon === null) return "";
  const split = `${whole(policy.problems)} problems of the ${policy.split} split`;
  const covered = policy.covered ? "this request is covered." : `this request is not covered: ${policy.uncovered}`;
  return `Certified on ${split}, of which ${whole(policy.harmed)} turned wrong; ${covered}`;
}

// Of a run that is over.
export function alone(run) {
  const { exit, unstopped } = run.finished;
  const answer = run.answer.length > LONG ? "The answer is complete." : `Answer: ${run.answer || "none"}`;
  if (!exit) return answer;
  const saved = unstopped ? `, ${saving(unstopped - run.total, "about ")}` : "";
  return `Stopped after ${tokens(exit.token)} of thinking${saved}. ${answer}`;
}

// Of two runs of one seed that are over, the second without exits.
export function together(run, plain) {
  const same = run.answer === plain.answer ? "The answers are the same." : "The answers differ.";
  if (!run.finished.exit) return `No exit was taken: both take ${tokens(run.total)}. ${same}`;
  if (!plain.thinking.startsWith(run.thinking)) return `The two runs think differently. ${same}`;
  const sure = plain.cut ? "at least " : "", share = percent(Math.max(1 - run.total / plain.total, 0), 2);
  return `${whole(run.total)} instead of ${sure}${tokens(plain.total)}: ${sure}${share} saved. ${same}`;
}
