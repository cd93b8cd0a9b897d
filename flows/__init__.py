"""The Prefect door: flows decorate the stages and show them; no machine learning happens here."""
