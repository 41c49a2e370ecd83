// A page that is read from the disk may start no worker. The search gets a hidden frame for one.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = data => {
        const event = new MessageEvent("message", {data});
        this.dispatchEvent(event);
        this.onmessage?.(event);
      };
      const script = inner.document.createElement("script");
      script.src = url;
      script.onload = () => {
        for (const data of this.waiting) this.tell(data);
        this.waiting = null;
      };
      inner.document.head.append(script);
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
