"""The experiment grid: spec, resolve, plan, the store, and the driver that runs the plan on Ray."""
