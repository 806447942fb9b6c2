//! Policies that can never match, or that get in each other's way.
