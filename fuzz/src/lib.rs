//! Fuzz targets over every parser and state machine.
