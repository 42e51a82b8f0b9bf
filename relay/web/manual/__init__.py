"""The documentation for callers: Markdown in the package, filled from the running settings.

`contents` lists the pages, `filling` puts settings in their places, `rendering` makes HTML,
`edition` is all pages of one language, and `library` keeps the present editions.
"""
