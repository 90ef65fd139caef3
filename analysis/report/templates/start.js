equigrid.page.start();
equigrid.page.opened(location.hash);
