// The page works without any of this; with it, there are tools.

found("tools").hidden = false;
found("search").addEventListener("input", () => search(true));
makeSortable();
watchRemoval();
if (mayWrite) watchUploads();
showRows();
