// A page that is read from the disk may start no worker. The search gets a hidden frame for one.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      const page = inner.document;
      page.open();
      page.write("<!doctype html><body>");
      page.close();
      inner.postMessage = data => {
        const event = new MessageEvent("message", {data});
        this.dispatchEvent(event);
        this.onmessage?.(event);
      };
      const load = address => new Promise((done, failed) => {
        const script = page.createElement("script");
        Object.assign(script, {src: address, onload: done, onerror: failed});
        page.body.append(script);
      });
      inner.importScripts = (...urls) =>
        urls.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
      load(url).then(() => {
        for (const data of this.waiting.splice(0)) this.tell(data);
        this.waiting = null;
      });
    }

    tell(data) {
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data}));
    }

    postMessage(data) {
      this.waiting ? this.waiting.push(data) : this.tell(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
