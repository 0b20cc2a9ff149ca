//! Feeds both ways in for an HTTP head whatever comes: the look at a whole handshake and the HTTP
//! server must agree on what is a handshake, and nothing may panic on the way to a route.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| gatecast::doors::feed(input));
