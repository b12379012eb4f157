// Makes pages live; every page works without it.
"use strict";

// Times say how long ago, and go on saying it.
const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "always" });
function tell() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
    const unit = units.find(([, size]) => Math.abs(seconds) >= size * 0.75);
    time.textContent = unit ? words.format(Math.round(seconds / unit[1]), unit[0]) : seconds > 0 ? "in a moment" : "just now";
  }
}
setInterval(tell, 30000);

// Copy buttons.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: press Ctrl+C";
    }
  });
}

// The code of a link stands behind the "#", which no browser sends and no log sees.
const form = document.querySelector("form[data-from-link]");
if (form && location.hash.length > 1) {
  form.elements.code.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  form.requestSubmit();
}

// Logs that go on: one line of text per event.
for (const log of document.querySelectorAll("pre[data-stream]")) {
  const status = document.getElementById(log.dataset.status);
  const most = 5000;
  const source = new EventSource(log.dataset.stream);
  const say = (text) => { if (status) status.textContent = text; };
  source.onopen = () => say("Live");
  source.onmessage = (event) => {
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(event.data + "\n");
    while (log.childNodes.length > most) log.firstChild.remove();
    if (follows) log.scrollTop = log.scrollHeight;
  };
  source.addEventListener("end", (event) => {
    source.close();
    say(event.data || "Ended");
    if (log.dataset.then) location.assign(log.dataset.then);
  });
  source.onerror = () => say(source.readyState === EventSource.CLOSED ? "Ended; load the page again" : "Reconnecting");
}

// Parts of a page that are asked for again while somebody looks at it.
for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden || part.contains(document.activeElement)) return;
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { accept: "text/html" }, redirect: "error" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      if (fresh) { part.replaceChildren(...fresh.childNodes); tell(); }
    } catch { /* The next time may work. */ }
  }, 10000);
}
