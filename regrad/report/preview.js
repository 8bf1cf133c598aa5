const PLOTS = {};
showPlots();
