/* A page opened from a disk may not start a worker, which searches. There a frame does its work. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      // What the worker's script calls: importScripts adds scripts, postMessage answers the page.
      frame.srcdoc = `<script>
        var importScripts = (...urls) => urls.reduce((before, url) => before.then(() =>
          new Promise((resolve, reject) => {
            const script = document.createElement("script");
            script.src = new URL(url, ${JSON.stringify(String(url))});
            script.onload = resolve;
            script.onerror = reject;
            document.body.appendChild(script);
          })), Promise.resolve());
        var postMessage = data => parent.dispatchEvent(
          new MessageEvent("message", { data, source: window }));
      <\/script><script src="${url}"><\/script>`;
      document.body.appendChild(frame);
      addEventListener("message", ({ data, source }) => {
        if (source !== frame.contentWindow) return;
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      });
      frame.onload = () => {
        this.ready = frame.contentWindow;
        this.waiting.forEach(data => this.postMessage(data));
      };
    }
    postMessage(data) {
      if (!this.ready) this.waiting.push(data);
      else this.ready.dispatchEvent(new MessageEvent("message", { data }));
    }
    terminate() {}
  };
}
