"""One HTML file about one or several runs, without network or server. Reads files only; torch-free."""

from reasonrl.analysis.report.page import MARK, build_page, is_report, write_report

__all__ = ["MARK", "build_page", "is_report", "write_report"]
