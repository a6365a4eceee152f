//! The promises of the seams, one test each, stamped out for every implementation.

mod postgres;
mod relay;
mod store;
