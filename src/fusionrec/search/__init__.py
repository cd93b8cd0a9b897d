"""Search: words, a picture, a spoken sentence or any mixture of them find items, by keywords, by vectors and by what
earlier searchers clicked. :class:`fusionrec.search.index.SearchIndex` is the whole of it for a caller."""
