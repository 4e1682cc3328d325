/* Volumes: their worst slices, and from any slice to the large view, where the arrows go through the volume. */
const imageOf = new Map(data.images.map((image) => [image.n, image]));

function openSlice(volume, name) {
  shown = volume.p.map((path) => imageOf.get(path)).filter((image) => image && "s" in image);
  const at = shown.findIndex((image) => image.n === name);
  if (at >= 0) openViewer(at);
}
viewer.addEventListener("close", update);

for (const row of document.querySelectorAll(".volume")) {
  const volume = data.volumes[Number(row.dataset.volume)];
  const list = row.querySelector(".worst");
  if (!list) continue;
  for (const name of volume.w) {
    const image = imageOf.get(name);
    const number = volume.p.indexOf(name) + 1;
    const button = element("button");
    button.type = "button";
    button.setAttribute("aria-label", `Slice ${number}, score ${image.s.toFixed(3)}`);
    const picture = element("span", "picture");
    const base = element("img");
    base.alt = "";
    base.loading = "lazy";
    base.src = image.t || image.p;
    picture.append(base);
    const heat = element(image.m ? "canvas" : "img", "heat");
    if (image.m) { heat.image = image; visible.observe(heat); } else { heat.alt = ""; heat.loading = "lazy"; heat.src = image.o; }
    picture.append(heat);
    const label = element("span", "label number");
    label.append(element("span", "", `slice ${number}`), element("b", "", image.s.toFixed(3)));
    button.append(picture, label);
    button.addEventListener("click", () => openSlice(volume, name));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
  const profile = row.querySelector(".profile");
  profile.addEventListener("click", (event) => {
    const box = profile.getBoundingClientRect();
    const index = Math.round((volume.p.length - 1) * (event.clientX - box.left) / box.width);
    openSlice(volume, volume.p[Math.max(0, Math.min(index, volume.p.length - 1))]);
  });
}
