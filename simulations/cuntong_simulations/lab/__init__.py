"""The laboratory: real daemons in network namespaces on emulated access links.

`topology` and `scenario` say what is to be measured, `links` is the model of a link (pure), `emulator` the
process that carries packets by that model, `namespaces` the places packets come from, `proof` the
emulator's own test, `probes` the public that shares the links, `run` one measurement, `report` its page.
"""
