"""The demo on ICD-10-CM: `icd10cm` makes the data, `run` does all the rest."""
