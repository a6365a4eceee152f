//! Fine, broken, fine again: a store that fails, a server that dies, readers that do not read,
//! sockets that are only half open, somebody who sends nothing but noise.

mod failing_store;
mod readers;
mod sudden_death;
