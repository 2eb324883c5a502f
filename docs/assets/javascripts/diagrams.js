// Loads Mermaid, which is 2.5 MB, from this site when a page has a diagram, instead of on every page.
{
  const source = new URL("mermaid.tiny.js", document.currentScript.src).href;
  let options, loaded;

  const load = () => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = source;
    script.onload = () => {
      window.mermaid.initialize(options);
      resolve(window.mermaid);
    };
    script.onerror = () => reject(new Error(`cannot load ${source}`));
    document.head.append(script);
  });

  // What the theme calls for each diagram, until the script puts Mermaid in its place.
  window.mermaid = {
    initialize(given) { options = given; },
    async render(...diagram) {
      loaded ??= load();
      return (await loaded).render(...diagram);
    },
  };
}
