//! The stylesheet and the icon of all pages of the demo.

use http::StatusCode;

use super::server::{self, Response};

/// Where each server of pages has the stylesheet.
pub(super) const PATH: &str = "/style.css";
/// Where the application has the icon.
pub(super) const ICON_PATH: &str = "/icon.svg";

pub(super) fn response() -> Response {
    server::response(
        StatusCode::OK,
        "text/css; charset=utf-8",
        include_str!("web/style.css"),
    )
}

pub(super) fn icon() -> Response {
    let icon = include_str!("web/icon.svg");
    server::response(StatusCode::OK, "image/svg+xml", icon)
}
