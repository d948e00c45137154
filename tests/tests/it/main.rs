//! The whole platform from outside: the binaries that `make build` made, each test with its own.

mod contract;
mod crash;
mod events;
mod faults;
mod group;
mod journeys;
mod metrics;
mod people;
mod processes;
mod protocol;
mod readme;
mod refuse;
mod restore;
mod start;
mod starts;
mod terminal;
mod tidy;
mod traces;
