// Passkeys and security keys: asks the browser for one, and sends its answer. The pages say what to do without.
"use strict";
{
  const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  // From the JSON of the server to what the browser takes.
  const asked = ({ publicKey }) => {
    const list = (credentials) => (credentials ?? []).map((one) => ({ ...one, id: bytes(one.id) }));
    const options = { ...publicKey, challenge: bytes(publicKey.challenge) };
    if (publicKey.user) options.user = { ...publicKey.user, id: bytes(publicKey.user.id) };
    if (publicKey.allowCredentials) options.allowCredentials = list(publicKey.allowCredentials);
    if (publicKey.excludeCredentials) options.excludeCredentials = list(publicKey.excludeCredentials);
    return { publicKey: options };
  };

  // And back.
  const answered = (credential) => {
    const response = {};
    for (const field of ["attestationObject", "authenticatorData", "clientDataJSON", "signature", "userHandle"]) {
      if (credential.response[field]) response[field] = text(credential.response[field]);
    }
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    const { id, type } = credential;
    return JSON.stringify({ id, rawId: text(credential.rawId), type, response, clientExtensionResults: credential.getClientExtensionResults() });
  };

  const words = (error) => error.name === "InvalidStateError" ? "This one is added already."
    : error.name === "NotAllowedError" ? "It was cancelled, or took too long. Try again."
    : error.name === "SecurityError" ? "Passkeys work only under the Console’s own name. Open it there."
    : `It did not work: ${error.message}`;

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    if (!window.PublicKeyCredential) continue;
    const said = form.querySelector("[role=alert]");
    form.hidden = false;
    form.addEventListener("submit", async (event) => {
      if (form.elements.answer.value) return;
      event.preventDefault();
      said.hidden = true;
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        let { options } = form.dataset;
        if (form.dataset.start) {
          const answer = await fetch(form.dataset.start, { method: "POST", redirect: "error" });
          if (!answer.ok) throw new Error("the Console does not answer");
          const started = await answer.json();
          form.elements.id.value = started.id;
          options = JSON.stringify(started.options);
        }
        const credential = await navigator.credentials[form.dataset.passkey](asked(JSON.parse(options)));
        const answer = answered(credential);
        if (form.dataset.back) {
          location.assign(`${form.dataset.back}?data=${encodeURIComponent(btoa(answer))}`);
          return;
        }
        form.elements.answer.value = answer;
        form.submit();
      } catch (error) {
        said.textContent = words(error);
        said.hidden = false;
        button.disabled = false;
      }
    });
  }

  // Back to the command line, which waits.
  const back = document.querySelector("a[data-back]");
  if (back) location.assign(back.href);
}
