//! Rules of the house, checked by tests.
