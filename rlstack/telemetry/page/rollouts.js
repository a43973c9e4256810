// The browser of rollouts: which are shown is in the address, as #rollouts?task=...&outcome=...&step=...&q=...
// &sort=...&whole=1. Texts are put into the page as text, never as HTML.
const GROUPS_AT_ONCE = 10;
const LONG_TEXT = 2000; // characters, of which the rest is shown on demand

function element(tag, className, text, children = []) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const rounded = (value) => String(Number(value.toFixed(3)));

// What the filters and the orders need to know of each group and rollout.
function prepare({ groups, verdicts }) {
  for (const group of groups) {
    const rewards = group.rollouts.map((rollout) => rollout.reward).filter((reward) => reward !== null);
    group.best = Math.max(...rewards);
    group.worst = Math.min(...rewards);
    group.mean = rewards.length ? rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length : null;
    group.spread = rewards.reduce((sum, reward) => sum + (reward - group.mean) ** 2, 0) / (rewards.length || 1);
    group.searched = `${group.problem}\n${group.answer ?? ""}`.toLowerCase();
    for (const rollout of group.rollouts) {
      if (rollout.reward === null) rollout.verdict = "unscored";
      else if (!verdicts.includes(group.task)) rollout.verdict = "scored";
      else rollout.verdict = rollout.reward === 1 ? "correct" : "incorrect";
    }
  }
  return groups;
}

function steps(text) {
  const [first, last = first] = text.split("-").map((part) => parseInt(part, 10));
  return Number.isNaN(first) ? [-Infinity, Infinity] : [first, Number.isNaN(last) ? Infinity : last];
}

// The groups that have a rollout which passes all filters, each with those of its rollouts that are to be shown.
function matching(groups, wanted) {
  const [first, last] = steps(wanted.step);
  const words = wanted.q.trim().toLowerCase();
  const passes = (group, rollout) =>
    (!wanted.outcome ||
      (wanted.outcome === "cut-off" ? !rollout.finished : rollout.verdict === wanted.outcome)) &&
    (!words || group.searched.includes(words) || rollout.text.toLowerCase().includes(words));
  const found = [];
  for (const group of groups) {
    if (group.step < first || group.step > last || (wanted.task && group.task !== wanted.task)) continue;
    const passing = group.rollouts.filter((rollout) => passes(group, rollout));
    if (passing.length) found.push({ group, passing, shown: wanted.whole ? group.rollouts : passing });
  }
  return found;
}

const orders = {
  newest: (a, b) => b.group.step - a.group.step,
  spread: (a, b) => b.group.spread - a.group.spread,
  lowest: (a, b) => (a.group.mean ?? Infinity) - (b.group.mean ?? Infinity),
};

function longText(text) {
  const shown = element("div", "answer", text.length > LONG_TEXT ? text.slice(0, LONG_TEXT) : text);
  if (text.length <= LONG_TEXT) return shown;
  const more = element("button", "", `Show all ${text.length.toLocaleString("en")} characters`);
  more.type = "button";
  more.addEventListener("click", () => {
    shown.textContent = text;
    more.remove();
  });
  return element("div", "", undefined, [shown, more]);
}

function drawRollout(group, rollout) {
  const words = [rollout.verdict === "unscored" ? `no reward: ${rollout.outcome}` : rollout.verdict];
  if (rollout.verdict === "scored") words[0] = `reward ${rounded(rollout.reward)}`;
  const extreme = group.best > group.worst && { [group.best]: "best", [group.worst]: "worst" }[rollout.reward];
  if (extreme && rollout.verdict === "scored") words.push(extreme);
  if (!rollout.finished) words.push("cut off");
  words.push(counted(rollout.length, "token"));
  const made = element("li", "", undefined, [element("div", "caption", words.join(" · ")), longText(rollout.text)]);
  made.dataset.verdict = rollout.verdict;
  if (extreme) made.dataset.extreme = extreme;
  return made;
}

function drawGroup({ group, shown }) {
  const facts = [`step ${group.step}`, group.task, `row ${group.row}`, `version ${group.version}`];
  facts.push(group.mean === null ? "no rewards" : `mean reward ${rounded(group.mean)}`);
  if (shown.length < group.rollouts.length) facts.push(`${shown.length} of ${group.rollouts.length} shown`);
  const answer = group.answer === null ? [] : [element("p", "caption", `reference answer: ${group.answer}`)];
  const list = element("ol", "", undefined, shown.map((rollout) => drawRollout(group, rollout)));
  return element("article", "", undefined, [
    element("h3", "caption", facts.join(" · ")), longText(group.problem), ...answer, list,
  ]);
}

function wantedByAddress(controls) {
  const given = new URLSearchParams(location.hash.replace(/^#rollouts\??/, ""));
  for (const control of controls.elements) {
    if (control.type === "checkbox") control.checked = given.get(control.name) === control.value;
    else if (control.name) control.value = given.get(control.name) ?? "";
    if (control.tagName === "SELECT" && control.selectedIndex < 0) control.value = "";
  }
}

function address(controls) {
  const given = [...new FormData(controls)].filter(([, value]) => value);
  return given.length ? `#rollouts?${new URLSearchParams(given)}` : "#rollouts";
}

async function showRollouts() {
  const [controls, count, list, more, data] = ["controls", "count", "groups", "more", "data"].map((name) =>
    document.getElementById(`rollouts-${name}`));
  let groups, found;
  try {
    groups = prepare(JSON.parse(await unpacked(data)));
  } catch (error) {
    count.textContent = `The rollouts could not be shown: ${error}`;
    return;
  }
  const reach = `${groups[0].step} to ${groups[groups.length - 1].step}`;
  function showMore() {
    const next = found.slice(list.children.length, list.children.length + GROUPS_AT_ONCE);
    list.append(...next.map(drawGroup));
    more.hidden = list.children.length === found.length;
    more.textContent = `Show more: ${(found.length - list.children.length).toLocaleString("en")} left`;
  }
  function show() {
    const values = new FormData(controls);
    const wanted = Object.fromEntries(
      ["task", "outcome", "step", "q", "sort", "whole"].map((name) => [name, values.get(name) ?? ""]));
    found = matching(groups, wanted);
    if (orders[wanted.sort]) found.sort(orders[wanted.sort]);
    const passing = found.reduce((sum, { passing }) => sum + passing.length, 0);
    count.textContent = found.length
      ? `${counted(passing, "rollout")} in ${counted(found.length, "group")}`
      : `Nothing in this page matches${wanted.step ? `; its steps go from ${reach}` : ""}.`;
    list.replaceChildren();
    showMore();
  }
  function followAddress() {
    if (!/^#rollouts(\?|$)/.test(location.hash)) return;
    wantedByAddress(controls);
    show();
    document.getElementById("rollouts").scrollIntoView();
  }
  function changed() {
    show();
    history.replaceState(null, "", address(controls)); // which some viewers of files do not allow
  }
  controls.addEventListener("input", changed);
  controls.addEventListener("reset", () => setTimeout(changed));
  controls.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  addEventListener("hashchange", followAddress);
  show();
  followAddress();
  document.body.dataset.rollouts = groups.length;
}

showRollouts();
