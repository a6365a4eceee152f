//! Several nodes on one database and one Redis, with real parts that are stopped, paused, cut and
//! killed while people write: what anybody was shown is stored once, what anybody wrote is settled
//! and stored once, and in the end every tab shows what is stored.

mod crowd;
mod database;
mod node;
mod nodes;
mod relay;

use crowd::Crowd;
use node::Node;
