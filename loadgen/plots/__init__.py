"""Pictures of a run: what is drawn, and matplotlib's drawing of it.

::

    RunReport ------------------> cells.py   ---> Lines           (a whole run: one point a cell)
    request lines -> trace.py --> requests.py --> Lines, Heat, Bars   (the inside of one cell)
    Searched ---------------------> search.py --> Lines           (the path of a search, a sweep)
    nights -----------------------> nights.py --> Lines           (one series of a store)
                                                    |
                              reports/html (ECharts) and draw.py (PNG, SVG) draw the same values

`choice.py` says which cells of a large run are worth a look.
"""
