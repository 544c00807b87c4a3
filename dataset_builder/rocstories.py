"""What is known of ROCStories: where to ask for it, what its users agree to, how to cite it."""

HOMEPAGE = "https://cs.rochester.edu/nlp/rocstories/"
TERMS = "ROCStories asks its users to register with its authors and not to pass the stories on"
CITATION = """\
@inproceedings{mostafazadeh-etal-2016-corpus,
    title = "A Corpus and Cloze Evaluation for Deeper Understanding of Commonsense Stories",
    author = "Mostafazadeh, Nasrin and Chambers, Nathanael and He, Xiaodong and Parikh, Devi and Batra, Dhruv and
      Vanderwende, Lucy and Kohli, Pushmeet and Allen, James",
    booktitle = "Proceedings of NAACL-HLT 2016",
    year = "2016",
    url = "https://aclanthology.org/N16-1098",
    doi = "10.18653/v1/N16-1098",
    pages = "839--849"
}
"""
